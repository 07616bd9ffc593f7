"""Prints the tables that the README quotes, from the files under `results/`."""

from collections.abc import Iterable, Iterator
from typing import Any

from benchmarks.measuring import read_result


def main() -> None:
    print("\n\n".join("\n".join(table) for table in tables()))


def tables() -> Iterator[list[str]]:
    """Each table's lines, in Markdown."""
    yield _label(read_result("label-cpu"))
    yield _decode(read_result("decode-cpu"))
    yield _scale(read_result("scale-cpu"))


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _label(result: dict[str, Any]) -> list[str]:
    names = {"casia": "CASIA's mix", "real": "real, about 2 s"}
    kinds = result["kinds"]
    sides = list(next(iter(kinds.values()))["sides"])
    rows = []
    for side in sides:
        found = [kinds[kind]["sides"][side] for kind in kinds]
        memory = max(one["peak_mib"] or 0 for one in found) / 1024
        rates = [f"{one['files_per_second']:.2f}" for one in found]
        rows.append([side, *rates, f"{memory:.1f} GiB"])
    header = ["files/s", *(names.get(kind, f"{kind} s") for kind in kinds), "peak memory"]
    return _table(header, rows)


def _decode(result: dict[str, Any]) -> list[str]:
    rows = [
        [
            name,
            f"{1000 * of['first_6_s_seconds']:.1f} ms",
            f"{of['librosa_whole_seconds']:.2f} s",
            f"{of['times_as_fast']:,.0f} ×",
        ]
        for name, of in result["formats"].items()
    ]
    return _table(["ten minutes of", "first 6 s", "librosa, all of it", "ratio"], rows)


def _scale(result: dict[str, Any]) -> list[str]:
    rows = []
    for size in result["sizes"]:
        labelled, resumed = size.get("labelled"), size["resumed"]
        rows.append(
            [
                f"{size['recordings']:,}",
                f"{labelled['files_per_second_after_first_row']:,.0f}" if labelled else "–",
                f"{labelled['driver_peak_mib']:,.0f} MiB" if labelled else "–",
                f"{resumed['seconds']:.0f} s",
                f"{resumed['driver_peak_mib']:,.0f} MiB",
            ]
        )
    labelling = ["files/s, small network", "driver's memory"]
    return _table(["recordings", *labelling, "nothing to do", "driver's memory"], rows)


if __name__ == "__main__":
    main()
