"""The tables and sentences on large corpora, long recordings, and columns beside the labels."""

from collections.abc import Iterator
from typing import Any

from benchmarks.measuring import markdown_table, read_result

_PAGE = "docs/performance.md"


def corpus_tables() -> Iterator[list[str]]:
    """The tables, each as lines of Markdown."""
    scale = read_result("scale-cpu")
    yield _scale(scale)
    yield _planning(scale)


def corpus_sentences() -> Iterator[tuple[str, str]]:
    """The sentences, each with the document that contains it."""
    yield _PAGE, _driver_memory(read_result("scale-cpu"))
    for sentence in _million(read_result("bucket-cpu")):
        yield _PAGE, sentence
    yield _PAGE, _storage(read_result("storage-cpu"))
    yield _PAGE, _long(read_result("long-cpu")["by_hours"])
    for sentence in _columns(read_result("columns-cpu")):
        yield "docs/output.md", sentence


def _columns(result: dict[str, Any]) -> Iterator[str]:
    emodb, words, corpus = (
        result["quality_of_real_recordings"][name] for name in ("emodb", "mandarin_words", "corpus")
    )
    for real in (emodb, words, corpus):
        assert real["words"] == {"": real["recordings"]}
    smallest, in_noise = (
        min(real[name] for real in (emodb, words, corpus))
        for name in ("smallest_level_range_db", "smallest_in_noise_db")
    )
    yield (
        "The thresholds were chosen so that usual speech has no words: none of"
        f" {corpus['recordings']} recordings of the demo corpus, {emodb['recordings']} of EMO-DB"
        f" and {words['recordings']} of single Mandarin words has one. Their level range is"
        f" {smallest:.1f} dB or more, with white noise 5 dB below the speech {in_noise:.1f} dB or"
        f" more; that of white noise is up to {result['largest_level_range_of_noise_db']:.1f} dB"
        " (`columns-cpu.json`)."
    )
    word, flac, long = (
        [result["quality"][name][part] for part in ("quality_ms", "decode_ms")]
        for name in ("wav16k 1.9 s", "flac48k 6 s", "wav16k 10 min")
    )
    yield (
        f"Measuring takes {word[0]:.2f} ms beside the {word[1]:.2f} ms of decoding a WAV file of"
        f" 1.9 s at 16 kHz, {flac[0]:.1f} ms beside {flac[1]:.1f} ms for the first 6 s of FLAC at"
        f" 48 kHz, and {long[0]:.0f} ms beside {long[1]:.0f} ms for ten minutes of WAV"
        " (`columns-cpu.json`)."
    )
    demo, full = (result["embeddings"][name] for name in ("demo", "published size"))
    assert full["with_ms"] < 1.1 * full["without_ms"]  # both vary by that much
    yield (
        f"In the compressed parts, an embedding of {full['embedding_size']} numbers takes"
        f" {full['bytes_per_row']:,.0f} bytes a row, and one of {demo['embedding_size']} numbers"
        f" takes {demo['bytes_per_row']:.0f}. Computing it takes less time than classifying varies"
        " by (`columns-cpu.json`)."
    )


def _storage(result: dict[str, Any]) -> str:
    ours, s3fs = (result[name]["get_4_threads"]["cpu_ms"] for name in ("obstore", "s3fs"))
    listed = 1000 / result["obstore"]["name"]["wall_ms"]
    return (
        f"A GET of a 61 kB object takes {ours:.2f} ms of CPU as the job makes it, with four"
        f" threads, and {s3fs:.2f} ms with s3fs; a prefix is listed at {listed:,.0f} names/s"
        " (`storage-cpu.json`)."
    )


def _long(by_hours: dict[str, dict[str, Any]]) -> str:
    assert list(by_hours) == ["0.02", "1", "10"]
    minute, hour, ten = (each["peak_mib_of_all_processes"] / 1024 for each in by_hours.values())
    return (
        f"A recording of 10 hours, labelled by segment, takes {ten:.1f} GiB in all processes"
        f" together, one of an hour {hour:.1f} GiB, and one of a minute, with one classifier rather"
        f" than two, {minute:.1f} GiB (`long-cpu.json`)."
    )


def _scale(result: dict[str, Any]) -> list[str]:
    rows = []
    for size in result["folder"]:
        labelled = size["labelled"]
        rate = f"{labelled['files_per_second_after_first_row']:,.0f}"
        rows.append([f"{size['recordings']:,}", rate, *_cost(labelled), *_cost(size["resumed"])])
    header = ["recordings", "files/s", "all labelled", "driver", "nothing to do", "driver"]
    return markdown_table(header, rows)


def _planning(result: dict[str, Any]) -> list[str]:
    sides = ("planned", "few_new", "resumed")
    rows = [
        [f"{size['recordings']:,}", *(cell for side in sides for cell in _cost(size[side]))]
        for size in result["bucket"]
    ]
    titles = "`--dry-run`", f"{result['new_recordings']:,} new", "nothing to do"
    header = (name for title in titles for name in (title, "driver"))
    return markdown_table(["recordings", *header], rows)


def _cost(run: dict[str, Any]) -> list[str]:
    return [f"{run['seconds']:,.0f} s", f"{run['driver_peak_mib']:,.0f} MiB"]


def _driver_memory(result: dict[str, Any]) -> str:
    few, *_, many = result["bucket"]
    peaks = (f"{size['few_new']['driver_peak_mib']:,.0f} MiB" for size in (few, many))
    each = 1e6 * many["resumed"]["seconds"] / many["recordings"]
    return (
        f"With {result['new_recordings']:,} new recordings, its peak is {next(peaks)} for"
        f" {few['recordings']:,} recordings and {next(peaks)} for {many['recordings']:,}. A rerun"
        f" of these with nothing to do takes {each:.0f} µs for each."
    )


def _million(result: dict[str, Any]) -> Iterator[str]:
    killed, resumed, rerun = (result[run] for run in ("killed", "resumed", "nothing_to_do"))
    yield (
        f"{result['recordings']:,} objects on SeaweedFS, with the server on the same two cores:"
        f" what was killed left {killed['rows']:,} rows, the next run labelled the other"
        f" {resumed['recordings']:,}, and each object had one row. A further run found nothing to"
        f" do in {rerun['seconds']:.0f} s."
    )
    yield (
        f"The driver's peak was {resumed['driver_peak_mib']:,.0f} MiB in the second of these runs."
    )
