"""The tables and sentences of docs/performance.md and README.md that quote figures from a GPU."""

from collections.abc import Iterator
from typing import Any

from benchmarks.measuring import read_result


def gpu_sentences() -> Iterator[tuple[str, str]]:
    """The sentences, each with the document that contains it."""
    network, job = read_result("classifier-gpu"), read_result("gpu")
    yield "README.md", _headline(network, job["job"])
    yield "docs/performance.md", _floor(network, job)
    yield "docs/performance.md", _agreement(network["agreement_with_the_card"])
    yield "docs/performance.md", _compiled(read_result("batches-gpu")["forms"])
    yield "docs/performance.md", _job(job["job"])
    yield "docs/performance.md", _start(read_result("gpu-start")["seconds"])
    yield "docs/performance.md", _forms(read_result("gpu-forms"))


def _headline(network: dict[str, Any], job: dict[str, Any]) -> str:
    casia = network["recordings_per_second"]["casia"]
    return (
        f"On an {network['machine']['gpu']}, the network alone labels {casia['ours bf16']:,.0f}"
        f" recordings/s of CASIA's lengths in bf16, {_against_transformers(casia)} times batched"
        f" transformers; a job from WAV files, once started, labels"
        f" {job['wav']['files_per_second_once_started']:,.0f} windows of 6 s per second."
    )


def _against_transformers(rates: dict[str, float]) -> str:
    return f"{rates['ours bf16'] / rates['transformers bf16']:.1f}"


def _floor(network: dict[str, Any], result: dict[str, Any]) -> str:
    parts = read_result("roofline")["of_a_window"].values()
    operations = sum(part["operations"] for part in parts)
    peak = result["operations_per_second_of_a_large_product"]
    rate, floor = network["recordings_per_second"]["6"]["ours bf16"], peak / operations
    return (
        f"The {operations / 1e9:.1f} GFLOP of a window limit the H200 to {floor:,.0f} windows/s at"
        f" the {peak / 1e12:.0f} TFLOP/s that a large product in bf16 reaches there; the network"
        f" reaches {rate / floor:.0%} of it."
    )


def _agreement(agreements: dict[str, Any]) -> str:
    fp32, bf16 = (agreements[f"ours {precision}"] for precision in ("fp32", "bf16"))
    return (
        f"Scores differ from the card's on the same GPU by at most"
        f" {fp32['largest_score_difference']:.1e} in fp32 and"
        f" {bf16['largest_score_difference']:.3f} in bf16; {fp32['equal_labels']:.0%} and"
        f" {bf16['equal_labels']:.1%} of the labels are equal."
    )


def _compiled(forms: list[dict[str, Any]]) -> str:
    chosen = [f for f in forms if f["batch_size"] == 128 and f["frames_per_step"] == 8]
    eager, compiled = sorted(chosen, key=lambda form: form["compiled"])
    gain = compiled["recordings_per_second"] / eager["recordings_per_second"] - 1
    first = max(form["first_round_seconds"] for form in forms if form["compiled"])
    return (
        f"`torch.compile` of the transformer's layers gains {gain:.0%} there and takes"
        f" {first:.0f} s when it starts, so it is not used."
    )


def _job(job: dict[str, Any]) -> str:
    once, whole, computing = (
        [job[extension][figure] for extension in ("wav", "flac", "mp3")]
        for figure in (
            "files_per_second_once_started", "files_per_second", "share_computing_once_started"
        )
    )  # fmt: skip
    return (
        f"With 16 cores, a job labels {once[0]:,.0f} files/s from WAV at 16 kHz once it has"
        f" started, {once[1]:,.0f} from FLAC at 48 kHz and {once[2]:,.0f} from MP3 at 44.1 kHz."
        f" The network computes {computing[0]:.0%}, {computing[1]:.0%} and {computing[2]:.0%} of"
        f" that time: for FLAC and MP3, decoding sets the pace. The first row comes"
        f" {job['wav']['seconds_to_first_row']:.0f} s after the command's imports, and by then"
        f" decoders have decoded part of the corpus; start included, {whole[0]:,.0f},"
        f" {whole[1]:,.0f} and {whole[2]:,.0f} of {job['wav']['report']['recordings']:,} files are"
        " labelled per second."
    )


def _start(seconds: dict[str, float]) -> str:
    driver, ray, work, process, imports, first = seconds.values()
    return (
        f"Of {sum(seconds.values()):.0f} s from Enter to the first row in one such job, the command"
        f" took {driver:.0f} s for its imports and the checkpoint, Ray {ray:.0f} s to start, the"
        f" search for work {work:.0f} s, and the classifier {process:.0f} s for its process,"
        f" {imports:.0f} s to import torch and transformers while decoders start, and {first:.0f} s"
        " for its first batch (`gpu-start.json`)."
    )


def _forms(forms: dict[str, Any]) -> str:
    network = max(forms["transformers_network_windows_per_second"].values())
    convolution = forms["positional_convolution_of_128_windows_ms"]
    return (
        f"With inputs on the GPU, transformers' network reaches {network:,} windows/s: cuDNN takes"
        f" {convolution['cudnn']:.1f} ms for the positional convolution of 128 windows in bf16, and"
        f" a Fourier transform {convolution['fft']:.1f} ms (`gpu-forms.json`)."
    )
