"""Prints the tables that the README quotes, from the files under `results/`."""

from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Any

from benchmarks.measuring import read_result

_KINDS = {"casia": "CASIA's mix", "real": "real, about 2 s"}


def main() -> None:
    print("\n\n".join("\n".join(table) for table in tables()))


def tables() -> Iterator[list[str]]:
    """Each table's lines, in Markdown."""
    yield _label(read_result("label-cpu"))
    yield _classifier(read_result("classifier-cpu"))
    yield _batches(read_result("batches-cpu"))
    yield _decode(read_result("decode-cpu"))
    yield _scale(read_result("scale-cpu"))


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _label(result: dict[str, Any]) -> list[str]:
    """Files/s from files to labels, a row a kind; of a job also while its classifiers run."""
    kinds, cores = result["kinds"], result["cores"]
    sides = list(next(iter(kinds.values()))["sides"])
    rows = [
        [_KINDS.get(kind, f"{kind} s"), *(_rate(of_kind["sides"][side], cores) for side in sides)]
        for kind, of_kind in kinds.items()
    ]
    peaks = [[of_kind["sides"][side]["peak_mib"] for of_kind in kinds.values()] for side in sides]
    rows.append(["peak memory", *(f"{max(peak) / 1024:.1f} GiB" for peak in peaks)])
    return _table(["files/s", *sides], rows)


def _rate(side: dict[str, Any], cores: int) -> str:
    rate, report = f"{side['files_per_second']:.2f}", side["report"]
    if not report:
        return rate
    busy = sum(report["stage_seconds"][stage] for stage in ("idle", "transfer", "compute"))
    return f"{rate} ({side['recordings'] * cores / busy:.2f})"


def _classifier(result: dict[str, Any]) -> list[str]:
    """Recordings/s of the network alone, and how many times the card's that is."""
    rates, ratios = result["recordings_per_second"], result["times_the_card"]
    sides = list(next(iter(rates.values())))
    rows = [
        [
            _KINDS.get(kind, f"{kind} s"),
            *(f"{rates[kind][side]:.2f} ({ratios[kind][side]:.1f} ×)" for side in sides),
        ]
        for kind in rates
    ]
    return _table(["recordings/s", *sides], rows)


def _batches(result: dict[str, Any]) -> list[str]:
    """Recordings/s by precision, batch size and the steps of their lengths."""
    key_of = itemgetter("precision", "batch_size", "compiled", "frames_per_step")
    rates = {key_of(form): form["recordings_per_second"] for form in result["forms"]}
    columns = dict.fromkeys(key[:2] for key in rates)
    rows = [
        [
            f"{step} frames{', compiled' if compiled else ''}",
            *(f"{rates[*column, compiled, step]:,.2f}" for column in columns),
        ]
        for compiled, step in sorted({key[2:] for key in rates})
    ]
    header = (f"{precision}, batches of {size}" for precision, size in columns)
    return _table(["lengths in steps of", *header], rows)


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
