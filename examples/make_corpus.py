"""Makes a corpus of synthetic Mandarin speech: six emotions, spoken by espeak-ng."""

import argparse
import csv
import ctypes
import io
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import espeakng_loader
import numpy as np
import soundfile
import soxr

SENTENCES = {
    "weather": "今天的天气真不错",
    "letter": "我昨天收到了他的信",
    "train": "火车马上就要开了",
    "home": "他们已经回家去了",
    "answer": "你怎么现在才告诉我",
    "door": "请把门打开让我进来",
}
# Rate in words per minute, volume, pitch, pitch range, pause between words in units of 10 ms. The
# values are invented so that the classes differ, above all in rate, which a small network learns
# long before pitch. They do not describe how people sound.
PROSODY = {
    "angry": (230, 190, 62, 95, 0),
    "fear": (280, 80, 72, 25, 0),
    "happy": (190, 140, 78, 85, 0),
    "neutral": (130, 100, 45, 45, 0),
    "sad": (105, 60, 22, 8, 3),
    "surprise": (158, 150, 92, 99, 0),
}
SPEAKERS = ("m1", "f1", "m3", "f2", "m7", "f5")  # voice variants of espeak-ng
# The speakers of a training corpus. Those of the demo are its test set, and not trained on.
SPLITS = {
    "train": tuple(
        "m2 m4 m5 m6 f3 Alex Alicia Andrea Andy Annie Denis Diogo Gene Henrique Hugo Jacky Lee"
        " Marco Mario Michael Mike Nguyen adam anika".split()
    ),
    "validation": ("m8", "f4", "antonio", "belinda", "boris", "linda"),
    "test": SPEAKERS,
}
TAKES = {"train": 48, "validation": 6, "test": 6}
FORMATS = ("wav", "flac", "ogg", "opus", "mp3", "m4a")
RATES = {"wav": 16_000, "opus": 24_000}  # Hz; the others keep espeak-ng's 22,050
NATIVE_RATE = 22_050  # Hz
_BLOCK = 4_096  # frames; libsndfile crashes when a long Ogg is written in one call


@dataclass(frozen=True)
class Clip:
    """A clip to synthesise."""

    emotion: str
    sentence: str
    speaker: str
    extension: str
    take: int

    @property
    def path(self) -> str:
        """The path within the corpus folder."""
        # One name is in Chinese characters, as in real corpora.
        chinese = (self.emotion, self.sentence, self.take) == ("happy", "weather", 1)
        name = SENTENCES[self.sentence] if chinese else self.sentence
        take = f"-{self.take}" if self.take > 1 else ""
        return f"{self.emotion}/{name}-{self.speaker}{take}.{self.extension}"


def clips(speakers: Sequence[str], formats: Sequence[str], takes: int) -> Iterator[Clip]:
    """Yields every pair of emotion and sentence in every take.

    With six speakers, each speaks every emotion once and every sentence once per take.
    """
    for take in range(1, takes + 1):
        for row, emotion in enumerate(PROSODY):
            for column, sentence in enumerate(SENTENCES):
                speaker = speakers[(row + column + take - 1) % len(speakers)]
                extension = formats[(row - column) % len(formats)]
                yield Clip(emotion, sentence, speaker, extension, take)


def make_corpus(folder: Path) -> None:
    """Writes the demo clips, a file that is not audio, and ``<folder>.csv`` with the truth."""
    written = write_clips(folder, clips(SPEAKERS, FORMATS, takes=1), Voice())
    rows = [row[:3] for row in written]
    broken = folder / "broken" / "not-audio.wav"
    broken.parent.mkdir(exist_ok=True)
    broken.write_bytes(b"This is not audio.\n")
    rows.append((f"{folder.name}/broken/not-audio.wav", "", ""))
    write_table(folder, [("path", "truth", "speaker"), *rows])


def make_training_corpus(folder: Path) -> None:
    """Writes clips to train on, and ``<folder>.csv`` with their truth and split.

    All are WAV, so that no class can be recognised by its codec.
    """
    rows: list[Sequence[str]] = [("path", "truth", "speaker", "sentence", "split")]
    voice = Voice()  # a single one: espeak-ng hangs if it is initialised twice
    for split, speakers in SPLITS.items():
        written = write_clips(folder, clips(speakers, ("wav",), TAKES[split]), voice)
        rows += [(*row, split) for row in written]
    write_table(folder, rows)


def write_clips(folder: Path, clips: Iterable[Clip], voice: "Voice") -> list[tuple[str, ...]]:
    """Synthesises and writes clips; returns path, truth, speaker and sentence of each."""
    rows: list[tuple[str, ...]] = []
    for clip in clips:
        path = folder / clip.path
        path.parent.mkdir(parents=True, exist_ok=True)
        write_audio(path, voice.speak(clip))
        rows.append((f"{folder.name}/{clip.path}", clip.emotion, clip.speaker, clip.sentence))
    return rows


def write_table(folder: Path, rows: Iterable[Sequence[str]]) -> None:
    """Writes ``<folder>.csv``."""
    with open(folder.with_name(f"{folder.name}.csv"), "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


class Voice:
    """espeak-ng in this process; the wheel `espeakng-loader` contains it and its data."""

    _RETRIEVE, _UTF8 = 1, 1  # return samples instead of playing them; text encoding
    _PARAMETERS = (1, 2, 3, 4, 7)  # rate, volume, pitch, range, gap

    def __init__(self) -> None:
        self._espeak = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        rate = self._espeak.espeak_Initialize(self._RETRIEVE, 0, data, 0)
        if rate != NATIVE_RATE:
            raise RuntimeError(f"espeak-ng failed to initialise (it returned {rate})")
        self._espeak.espeak_ng_SetRandSeed(1)  # some voices contain noise
        self._samples: list[np.ndarray] = []
        kind = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
        )
        self._callback = kind(self._receive)  # ctypes does not keep a reference
        self._espeak.espeak_SetSynthCallback(self._callback)

    def speak(self, clip: Clip) -> np.ndarray:
        """Returns float32 samples at 22,050 Hz, with up to 10 % of jitter in the prosody."""
        jitter = random.Random(f"{clip.emotion} {clip.sentence} {clip.speaker} {clip.take}")
        if self._espeak.espeak_SetVoiceByName(f"cmn+{clip.speaker}".encode()):
            raise RuntimeError(f"espeak-ng has no voice cmn+{clip.speaker}")
        for parameter, value in zip(self._PARAMETERS, PROSODY[clip.emotion], strict=True):
            jittered = round(value * jitter.uniform(0.9, 1.1))
            self._espeak.espeak_SetParameter(parameter, jittered, 0)
        self._samples.clear()
        text = SENTENCES[clip.sentence].encode()
        self._espeak.espeak_Synth(text, len(text) + 1, 0, 0, 0, self._UTF8, None, None)
        self._espeak.espeak_Synchronize()
        # Leaves headroom, because codecs and resamplers overshoot.
        return np.concatenate(self._samples).astype(np.float32) / 36_000

    def _receive(self, samples: "ctypes._Pointer[ctypes.c_short]", count: int, _: object) -> int:
        if count > 0:
            self._samples.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0


def write_audio(path: Path, samples: np.ndarray) -> None:
    """Writes samples at 22,050 Hz in the format given by the extension of the path."""
    extension = path.suffix[1:]
    rate = RATES.get(extension, NATIVE_RATE)
    if rate != NATIVE_RATE:
        samples = soxr.resample(samples, NATIVE_RATE, rate)
    if extension == "m4a":
        _write_m4a(path, samples, rate)
        return
    kind, subtype = ("OGG", "OPUS") if extension == "opus" else (extension.upper(), None)
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", rate, 1, subtype, format=kind) as file:
        for start in range(0, len(samples), _BLOCK):
            file.write(samples[start : start + _BLOCK])
    data = buffer.getvalue()
    path.write_bytes(_with_fixed_serial(data) if kind == "OGG" else data)


def _write_m4a(path: Path, samples: np.ndarray, rate: int) -> None:
    # "bitexact" omits the creation time, so that the file is the same every time.
    with av.open(str(path), "w", format="ipod", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _with_fixed_serial(data: bytes) -> bytes:
    """Replaces the random serial number of an Ogg file by 1, so that it is the same every time."""
    pages = []
    start = 0
    while start < len(data):
        count = data[start + 26]  # number of segments; their lengths follow
        end = start + 27 + count + sum(data[start + 27 : start + 27 + count])
        page = bytearray(data[start:end])
        page[14:18] = (1).to_bytes(4, "little")
        page[22:26] = bytes(4)
        page[22:26] = _ogg_checksum(page).to_bytes(4, "little")
        pages.append(bytes(page))
        start = end
    return b"".join(pages)


def _ogg_checksum(page: bytes | bytearray) -> int:
    """CRC-32 with polynomial 0x04C11DB7, not reflected, no inversion (RFC 3533)."""
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1) ^ (0x04C11DB7 if crc & 0x80000000 else 0)
        crc &= 0xFFFFFFFF
    return crc


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).parent / "corpus"
    parser.add_argument("folder", nargs="?", type=Path, default=default)
    parser.add_argument("--training", action="store_true", help="many more clips, other voices")
    arguments = parser.parse_args()
    make = make_training_corpus if arguments.training else make_corpus
    make(arguments.folder.resolve())
