"""Measures on this machine's CPUs: the card's script, the classifier alone, the whole job."""

import argparse
import csv
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Self

import pandas as pd
import torch
from torch import nn
from transformers import HubertModel, Wav2Vec2FeatureExtractor
from transformers.models.hubert.modeling_hubert import HubertPreTrainedModel

from ser_core.audio import decode
from ser_core.checkpoint import load_checkpoint
from ser_core.classifier import Classifier, Precision
from ser_core.fetch import open_recording

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "label-cpu.json"
PRECISIONS: tuple[Precision, ...] = ("fp32", "auto")
PACKAGES = ("torch", "transformers", "ray", "librosa", "soundfile", "soxr", "numpy", "pyarrow")
READABLE = {".wav", ".flac", ".ogg", ".opus", ".mp3"}  # by the card's script too, without FFmpeg
_SAMPLING_SECONDS = 0.5  # between two looks at the memory


@dataclass(frozen=True)
class Measured:
    """One side, once.

    Attributes:
        recordings: how many it labelled.
        seconds: how long that took; for the job from the command's start to its end.
        files_per_second: their ratio.
        steady_files_per_second: of the job, once every core has delivered a block.
        seconds_to_first_row: of the job.
        peak_mib: the most memory at once, of all its processes, shared pages shared out.
    """

    recordings: int
    seconds: float
    files_per_second: float
    peak_mib: float | None
    steady_files_per_second: float | None = None
    seconds_to_first_row: float | None = None


# ---- the model card's script ---------------------------------------------------------------------


class CardHead(nn.Module):
    """As on the card."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.out_proj = nn.Linear(config.hidden_size, config.num_class)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """As on the card."""
        logits: torch.Tensor = self.out_proj(self.dropout(torch.tanh(self.dense(pooled))))
        return logits


class CardModel(HubertPreTrainedModel):
    """As on the card, but for `post_init`, which transformers 5 asks for."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.hubert = HubertModel(config)
        self.classifier = CardHead(config)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, speech: torch.Tensor) -> torch.Tensor:
        """As on the card."""
        logits: torch.Tensor = self.classifier(torch.mean(self.hubert(speech)[0], dim=1))
        return logits


def time_card(checkpoint: str, paths: list[str]) -> float:
    """Seconds that the card's script takes for the files, one after another, once loaded."""
    import librosa

    processor = Wav2Vec2FeatureExtractor.from_pretrained(checkpoint)
    model: nn.Module = CardModel.from_pretrained(checkpoint)
    model.eval()

    def predict(path: str) -> None:
        speech, _ = librosa.load(path=path, sr=16_000)
        values = processor(
            speech,
            padding="max_length",
            truncation=True,
            max_length=6 * 16_000,
            return_tensors="pt",
            sampling_rate=16_000,
        ).input_values
        with torch.no_grad():
            logits = model(values)
        torch.softmax(logits, dim=1).cpu().numpy()

    predict(paths[0])  # librosa imports and compiles on its first call
    started = time.perf_counter()
    for path in paths:
        predict(path)
    return time.perf_counter() - started


# ---- our sides -----------------------------------------------------------------------------------


def time_classifier(checkpoint: str, paths: list[str], precision: Precision) -> float:
    """Seconds that one process with all cores takes for waveforms it has already decoded."""
    waveforms = []
    for path in paths:
        with open_recording(path, None) as handle:
            waveforms.append(decode(handle).waveform)
    classifier = Classifier(load_checkpoint(checkpoint), precision)
    classifier.scores(waveforms[: classifier.batch_size])
    started = time.perf_counter()
    classifier.scores(waveforms)
    return time.perf_counter() - started


def measure_job(checkpoint: str, paths: list[str], precision: Precision) -> Measured:
    """The command, from its start to its end, on the files as a manifest."""
    with tempfile.TemporaryDirectory() as folder:
        manifest, output, log = (Path(folder, name) for name in ("in.csv", "out", "log"))
        with open(manifest, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["path"], *([path] for path in paths)])
        command = [sys.executable, "-m", "jobs.label", "--input", str(manifest)]
        command += ["--output", str(output), "--model", checkpoint, "--precision", precision]
        started = time.perf_counter()
        with open(log, "wb") as file_:
            process = subprocess.Popen(command, cwd=ROOT, stdout=file_, stderr=file_)
            with Memory(process.pid) as memory:
                code = process.wait()
        seconds = time.perf_counter() - started
        if code:
            raise RuntimeError(log.read_text())
        report = json.loads(next((output / "_runs").glob("*.json")).read_text())
        if report["by_status"] != {"ok": len(paths)}:
            raise RuntimeError(f"not every recording was labelled: {report['by_status']}")
        first, steady = report["seconds_to_first_row"], steady_rate(output)
    count = len(paths)
    return Measured(count, seconds, count / seconds, memory.peak_mib, steady, first)


def steady_rate(output: Path) -> float | None:
    """Files/s after as many blocks as there are cores have come; all rows of one share a time."""
    blocks = pd.read_parquet(output, columns=["labeled_at"])["labeled_at"].value_counts()
    blocks = blocks.sort_index()
    skipped = os.cpu_count() or 1
    if len(blocks) < 4 * skipped:  # too few to tell
        return None
    seconds = (blocks.index[-1] - blocks.index[skipped - 1]).total_seconds()
    return float(blocks.iloc[skipped:].sum() / seconds)


# ---- processes and their memory ------------------------------------------------------------------


def measure_alone(
    work: Callable[..., float], checkpoint: str, paths: list[str], *more: Any
) -> Measured:
    """Runs work in a process of its own, so that no side finds another's memory or caches."""
    pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
    with pool, Memory(pool.submit(os.getpid).result()) as memory:
        seconds = pool.submit(work, checkpoint, paths, *more).result()
    return Measured(len(paths), seconds, len(paths) / seconds, memory.peak_mib)


class Memory:
    """Watches the memory of a process and of all that it starts; Linux only."""

    def __init__(self, pid: int) -> None:
        self.peak_mib: float | None = None
        self._pid = pid
        self._stopped = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._watch.join()

    def _look(self) -> None:
        while Path("/proc/self/smaps_rollup").exists():
            now = sum(map(_pss_kib, _with_children(self._pid))) / 1024
            self.peak_mib = max(self.peak_mib or 0.0, now)
            if self._stopped.wait(_SAMPLING_SECONDS):
                return


def _with_children(pid: int) -> set[int]:
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:  # it has ended
            continue
    family, size = {pid}, 0
    while len(family) > size:
        size = len(family)
        family |= {child for child, parent in parents.items() if parent in family}
    return family


def _pss_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


# ---- data, machine, result -----------------------------------------------------------------------


def choose_recordings(folders: list[Path], count: int, work: Path) -> list[str]:
    """A fixed, even sample of the folders' recordings; synthesised ones where there are none."""
    found = _recordings(folders)
    if not found:
        print(f"no recordings in {', '.join(map(str, folders))}: they are synthesised")
        command = [sys.executable, "examples/make_corpus.py", str(work / "synthetic")]
        command += ["--takes", str(math.ceil(count / 30))]  # 36 a take, 6 of them m4a
        subprocess.run(command, cwd=ROOT, check=True)
        found = [p for p in _recordings([work / "synthetic"]) if p.parent.name != "broken"]
    count = min(count, len(found))
    return [str(found[index * len(found) // count]) for index in range(count)]


def _recordings(folders: list[Path]) -> list[Path]:
    return sorted(p for f in folders for p in f.rglob("*") if p.suffix.lower() in READABLE)


def total_seconds(paths: list[str]) -> float:
    """How long the recordings are, all together."""
    total = 0.0
    for path in paths:
        with open_recording(path, None) as handle:
            total += decode(handle).duration
    return total


def machine() -> dict[str, Any]:
    """What the numbers depend on; nothing that names this machine."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "load_average_before": os.getloadavg()[0],
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def measure(paths: list[str], few: list[str], checkpoint: str, rounds: int) -> dict[str, Any]:
    """Every side, round after round, so that what else runs here meets them all alike."""
    sides = {"card": partial(measure_alone, time_card, checkpoint, few)}
    for precision in PRECISIONS:
        alone = partial(measure_alone, time_classifier, checkpoint, paths, precision)
        sides[f"classifier {precision}"] = alone
        sides[f"job {precision}"] = partial(measure_job, checkpoint, paths, precision)
    taken: dict[str, list[Measured]] = {name: [] for name in sides}
    for turn in range(rounds):
        for name, side in sides.items():
            taken[name].append(side())
            rate = taken[name][-1].files_per_second
            print(f"round {turn + 1}, {name}: {rate:.2f} files/s", file=sys.stderr, flush=True)
    best = {name: max(them, key=lambda m: m.files_per_second) for name, them in taken.items()}
    return {
        "best": {name: asdict(measured) for name, measured in best.items()},
        "ratios": ratios(best),
        "rounds": {name: [asdict(one) for one in them] for name, them in taken.items()},
    }


def ratios(best: dict[str, Measured]) -> dict[str, float]:
    """How the sides compare, each at its best round of this run."""
    found = {}
    card = best["card"].files_per_second
    for precision in PRECISIONS:
        alone, job = best[f"classifier {precision}"].files_per_second, best[f"job {precision}"]
        found[f"classifier / card, {precision}"] = alone / card
        found[f"job / classifier, {precision}"] = job.files_per_second / alone
        if job.steady_files_per_second:
            found[f"job, steady / classifier, {precision}"] = job.steady_files_per_second / alone
    return found


def show(result: dict[str, Any]) -> None:
    """Prints the best of each side, and the ratios."""
    table = pd.DataFrame.from_dict(result["best"], orient="index")
    print(table.to_string(na_rep="-", float_format="%.2f"))
    for name, ratio in result["ratios"].items():
        print(f"{name}: {ratio:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    shared = ROOT.parent / "shared" / "data"
    parser.add_argument("--recordings", type=int, default=200)
    parser.add_argument("--card-recordings", type=int, default=24, help="of them, for the card")
    parser.add_argument("--rounds", type=int, default=2, help="the best of each side counts")
    parser.add_argument("--data", type=Path, nargs="+", default=[shared], metavar="FOLDER")
    parser.add_argument("--result", type=Path, default=RESULT)
    flags = parser.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # of all sides alike
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ.pop("RAY_ADDRESS", None)
    with tempfile.TemporaryDirectory() as work:
        paths = choose_recordings(flags.data, flags.recordings, Path(work))
        few = paths[:: math.ceil(len(paths) / flags.card_recordings)]
        checkpoint = str(Path(work, "checkpoint"))
        command = [sys.executable, "examples/make_checkpoint.py", checkpoint, "--full"]
        subprocess.run(command, cwd=ROOT, check=True)
        result = {
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "recordings": dict(Counter(Path(path).parent.name for path in paths)),
            "audio_seconds": total_seconds(paths),
            "model": "examples/make_checkpoint.py --full: 95 M parameters, random weights",
            **measure(paths, few, checkpoint, flags.rounds),
        }
    flags.result.parent.mkdir(parents=True, exist_ok=True)
    flags.result.write_text(json.dumps(result, indent=2) + "\n")
    show(result)


if __name__ == "__main__":
    main()
