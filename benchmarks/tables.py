"""Prints the tables and figures that README and docs/ quote, from the files under `results/`."""

from collections.abc import Iterator
from typing import Any

from benchmarks.cluster_tables import cluster_sentences, cluster_tables
from benchmarks.corpus_tables import corpus_sentences, corpus_tables
from benchmarks.decode_tables import decode_sentences, decode_tables
from benchmarks.gpu_tables import gpu_sentences
from benchmarks.measuring import cpu_of, markdown_table, read_result
from benchmarks.network_tables import KINDS, network_sentences, network_tables
from benchmarks.report_tables import report_sentences
from benchmarks.start_tables import start_sentences, start_tables


def main() -> None:
    """Prints every table, then every sentence with the document that quotes it."""
    print("\n\n".join("\n".join(table) for table in tables()))
    for document, sentence in sentences():
        print(f"\n{document}: {sentence}")


def tables() -> Iterator[list[str]]:
    """The tables of docs/performance.md, each as lines of Markdown."""
    yield _label(read_result("label-cpu"))
    yield from network_tables()
    yield from decode_tables()
    yield from corpus_tables()
    yield from start_tables()
    yield from cluster_tables()


def sentences() -> Iterator[tuple[str, str]]:
    """The sentences that quote measured figures, each with the document that contains it."""
    label = read_result("label-cpu")
    yield "README.md", _headline(label)
    yield from gpu_sentences()
    yield from corpus_sentences()
    yield from network_sentences()
    yield from report_sentences()
    yield from start_sentences()
    yield from cluster_sentences()
    yield from decode_sentences()
    for sentence in (
        *_where_measured(),
        _recordings_measured(label),
        _start_and_end(label),
        _agreement(label),
        _times_the_card(label),
        _other_machines(),
        _job_and_classifier(label, read_result("label-cpu-1-of-2")),
        _job_and_classifier_on_amx(read_result("label-cpu-amx")),
        _cores_of_ray(label),
        _training(read_result("train-emodb")),
    ):
        yield "docs/performance.md", sentence
    yield "docs/evaluation.md", _splits(read_result("compare-splits-emodb"))


# ---- tables --------------------------------------------------------------------------------------


def _label(result: dict[str, Any]) -> list[str]:
    """Files/s from files to labels, one row per kind; in parentheses while classifiers run."""
    kinds, cores = result["kinds"], result["cores"]
    sides = list(next(iter(kinds.values()))["sides"])
    rows = [
        [KINDS.get(kind, f"{kind} s"), *(_rate(measured["sides"][side], cores) for side in sides)]
        for kind, measured in kinds.items()
    ]
    peaks = [[measured["sides"][side]["peak_mib"] for measured in kinds.values()] for side in sides]
    rows.append(["peak memory", *(f"{max(peak) / 1024:.1f} GiB" for peak in peaks)])
    return markdown_table(["files/s", *sides], rows)


def _rate(side: dict[str, Any], cores: int) -> str:
    rate = f"{side['files_per_second']:.2f}"
    return f"{rate} ({_rate_while_busy(side, cores):.2f})" if side["report"] else rate


def _rate_while_busy(side: dict[str, Any], cores: int) -> float:
    """Files/s of a job while its classifiers run."""
    files: int = side["recordings"]
    return files / _busy_seconds(side, cores)


def _busy_seconds(side: dict[str, Any], cores: int) -> float:
    stages = side["report"]["stage_seconds"]
    seconds: float = sum(stages[stage] for stage in ("idle", "transfer", "compute"))
    return seconds / cores


# ---- sentences -----------------------------------------------------------------------------------


def _headline(label: dict[str, Any]) -> str:
    sides, ratios = label["kinds"]["casia"]["sides"], label["kinds"]["casia"]["ratios"]
    return (
        f"On two cores of an {label['machine']['cpu']}, a job labels"
        f" {sides['job fp32']['files_per_second']:.1f} files/s in fp32 and"
        f" {sides['job auto']['files_per_second']:.1f} in bf16, {ratios['job fp32 / card']:.1f} and"
        f" {ratios['job auto / card']:.1f} times the rate of the model card's script."
    )


def _where_measured() -> Iterator[str]:
    """The machine of each table of docs/performance.md, as the text before the table names it."""
    for name, sentence in {
        "label-cpu": "Files per second on two cores of an {cpu},",
        "classifier-cpu": "Recordings per second on one core of an {cpu},",
        "batches-cpu": "On one core of an {cpu}, 128 recordings in blocks of 8",
        "scale-cpu": "(on two cores of an {cpu})",
    }.items():
        yield sentence.format(cpu=cpu_of(read_result(name)))


def _recordings_measured(label: dict[str, Any]) -> str:
    kinds = label["kinds"]
    counts = {side: run["recordings"] for side, run in kinds["casia"]["sides"].items()}
    others = [
        kinds[kind]["sides"][side]["recordings"]
        for kind in kinds
        if kind != "casia"
        for side in ("job fp32", "job auto")
    ]
    return (
        f"The card's script and the plain Ray job labelled {counts['card']} recordings of each"
        f" kind, the classifier {counts['classifier fp32']}, the job {counts['job fp32']:,} (fp32)"
        f" and {counts['job auto']:,} (auto) of CASIA's mix and {min(others)} to {max(others)} of"
        " the other kinds."
    )


def _start_and_end(label: dict[str, Any]) -> str:
    jobs = [
        kind["sides"][side] for kind in label["kinds"].values() for side in ("job fp32", "job auto")
    ]
    seconds = [job["seconds"] - _busy_seconds(job, label["cores"]) for job in jobs]
    return f"Start and end of a job take {min(seconds):.0f} to {max(seconds):.0f} s"


def _agreement(label: dict[str, Any]) -> str:
    agreements = [kind["agreement_with_the_card"] for kind in label["kinds"].values()]
    largest = {
        side: max(agreement[side]["largest_score_difference"] for agreement in agreements)
        for side in ("fp32", "auto")
    }
    compared = sum(agreement["auto"]["recordings"] for agreement in agreements)
    equal = {
        side: sum(a[side]["recordings"] * a[side]["equal_labels"] for a in agreements)
        for side in ("fp32", "auto")
    }
    assert equal["fp32"] == compared  # the sentence says so
    return (
        f"Scores differ from the card's by at most {largest['fp32']:.1e} in fp32 and"
        f" {largest['auto']:.3f} in bf16; of the {compared} recordings compared, all have the"
        f" card's label in fp32 and {equal['auto']:.0f} in bf16."
    )


def _times_the_card(label: dict[str, Any]) -> str:
    ratios = label["kinds"]["casia"]["ratios"]
    return (
        "On CASIA's mix, the classifier reaches"
        f" {ratios['classifier fp32 / card']:.1f} (fp32) and"
        f" {ratios['classifier auto / card']:.1f} (auto) times the card's rate, and the whole job,"
        f" from start to end, {ratios['job fp32 / card']:.1f} and"
        f" {ratios['job auto / card']:.1f} times."
    )


def _other_machines() -> str:
    amx, zen4 = (
        read_result(name)["kinds"]["casia"]["ratios"]
        for name in ("label-cpu-amx", "label-cpu-zen4")
    )
    return (
        f"On two cores of an {cpu_of(read_result('label-cpu-amx'))} with matrix instructions (AMX)"
        " the classifier of release 0.2 reaches"
        f" {amx['classifier fp32 / card']:.1f} and {amx['classifier auto / card']:.1f} times the"
        " card's rate (`label-cpu-amx.json`); on another"
        f" {cpu_of(read_result('label-cpu-zen4'))}, with an earlier version whose convolutions were"
        f" not yet matrix products, {zen4['classifier fp32 / card']:.1f} and"
        f" {zen4['classifier auto / card']:.1f} times (`label-cpu-zen4.json`)."
    )


def _job_and_classifier(label: dict[str, Any], spare_core: dict[str, Any]) -> str:
    full, spare = (_shares_of_classifier(result) for result in (label, spare_core))
    return (
        "While its classifiers run, the job reaches"
        f" {full['fp32']:.0%} (fp32) and {full['auto']:.0%} (auto) of their rate alone; with one"
        f" classifier and a spare core, {spare['fp32']:.0%} and {spare['auto']:.0%}"
        " (`label-cpu-1-of-2.json`)."
    )


def _job_and_classifier_on_amx(result: dict[str, Any]) -> str:
    shares = _shares_of_classifier(result)
    return (
        f"On the {cpu_of(result)}, with release 0.2, it reaches {shares['fp32']:.0%} and"
        f" {shares['auto']:.0%}."
    )


def _shares_of_classifier(result: dict[str, Any]) -> dict[str, float]:
    sides = result["kinds"]["casia"]["sides"]
    return {
        precision: _rate_while_busy(sides[f"job {precision}"], result["cores"])
        / sides[f"classifier {precision}"]["files_per_second"]
        for precision in ("fp32", "auto")
    }


def _cores_of_ray(label: dict[str, Any]) -> str:
    sides = label["kinds"]["casia"]["sides"]
    fp32, auto = (
        # Ray Data runs both decoding and classifying in processes of this name.
        sum(cores for name, cores in sides[job]["cores"].items() if name != "ray::MapWorker(")
        for job in ("job fp32", "job auto")
    )
    return (
        "On CASIA's mix, the driver and Ray's own processes use"
        f" {fp32:.2f} (fp32) and {auto:.2f} (auto) of a core on average."
    )


def _training(result: dict[str, Any]) -> str:
    settings, test = result["settings"], result["metrics"]["best"]["test"]
    return (
        f"Training a small HuBERT from scratch on EMO-DB for {settings['epochs']} epochs took"
        f" {result['seconds']:.0f} s on two cores of an {cpu_of(result)}; on speakers of the test"
        f" split its UAR is {test['uar']:.2f}, with chance at {result['chance_uar']:.2f}"
        " (`train-emodb.json`)."
    )


def _splits(result: dict[str, Any]) -> str:
    by_split = {row["split"]: row for row in result["splits"]}
    uar = {name: f"{row['uar_mean']:.3f} ± {row['uar_std']:.3f}" for name, row in by_split.items()}
    train = {name: f"{row['train']:.0f}" for name, row in by_split.items()}
    return (
        "A small HuBERT trained from scratch on EMO-DB (seven classes, chance 0.143,"
        f" {result['settings']['seeds']} seeds) reaches a UAR of {uar['random']} on a random split,"
        f" {uar['speaker']} on other speakers, and {uar['speaker-sentence']} on other speakers"
        " saying other sentences. The variation between seeds exceeds the difference between the"
        f" first two splits, and the third trains on {train['speaker-sentence']} recordings"
        f" instead of {train['speaker']} (`benchmarks/results/compare-splits-emodb.json`)."
    )


if __name__ == "__main__":
    main()
