"""Parts of a source, as other processes list them, have the recordings of the whole."""

import json
import pickle
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from recordings import speech_like, write_audio

from ser_core.sources.forms import open_source
from ser_core.sources.interface import InputOptions
from ser_core.sources.recording import Recording


def identities(source):
    return [each.identity for page in source.pages() for each in page.recordings]


def parts(source, count=8):
    """Its parts, as another process gets them."""
    return [pickle.loads(pickle.dumps(part)) for part in source.split(count)]


def check(source, expected, least=1):
    whole = identities(source)
    assert len(whole) == len(set(whole)) == expected
    split = parts(source)
    assert len(split) >= least
    found = [identity for part in split for identity in identities(part)]
    assert sorted(found) == sorted(whole)
    assert all(part.columns == source.columns for part in split)
    listed = [each for page in source.pages() for each in page.recordings]
    assert source.covers(listed).all()
    return split


@pytest.fixture
def corpus(tmp_path):
    for number in range(4):
        folder = tmp_path / "corpus" / f"day-{number % 2}"
        write_audio(folder / f"{number}.wav", speech_like(0.2, seed=number))
    (tmp_path / "corpus" / "notes.txt").write_text("notes")
    return tmp_path / "corpus"


@pytest.fixture
def shards(corpus):
    for shard in range(3):
        with tarfile.open(corpus.parent / f"{shard}.tar", "w") as tar:
            for path in sorted(corpus.rglob("*.wav")):
                tar.add(path, f"{shard}-{path.name}")
    return str(corpus.parent / "*.tar")


def test_files(corpus):
    check(open_source([str(path) for path in corpus.rglob("*.wav")]), 4)


def test_folders_and_patterns(corpus):
    (part,) = check(open_source([str(corpus)]), 4)
    *_, last = part.pages()
    assert last.skipped == {".txt": 1}
    check(open_source([str(corpus / "day-0"), str(corpus / "day-1" / "*.wav")]), 4, least=2)


def test_shards(shards):
    source = open_source([shards])
    check(source, 12, least=3)
    assert len(source.split(2)) == 2


def test_a_part_may_be_without_recordings(corpus, shards):
    with tarfile.open(corpus.parent / "3.tar", "w") as tar:
        tar.add(corpus / "notes.txt", "notes.txt")
    check(open_source([shards]), 12, least=4)


def test_parquet_files_with_audio(corpus):
    for number, path in enumerate(sorted(corpus.rglob("*.wav"))):
        audio = [{"bytes": path.read_bytes(), "path": path.name}]
        pq.write_table(pa.table({"audio": audio}), corpus.parent / f"{number}.parquet")
    check(open_source([str(corpus.parent / "*.parquet")]), 4, least=4)


def test_manifests(corpus):
    for day in range(2):
        rows = [f"day-{day}/{number}.wav,{number}\n" for number in (day, day + 2)]
        (corpus / f"{day}.csv").write_text("path,take\n" + "".join(rows))
    check(open_source([str(corpus / "*.csv")]), 4, least=2)


@pytest.mark.usefixtures("shards")
def test_tarred_manifests(corpus):
    for shard in range(2):
        (corpus.parent / f"{shard}.tar").rename(corpus.parent / f"audio_{shard}.tar")
        rows = [
            {"audio_filepath": f"{shard}-{n}.wav", "duration": 0.1, "shard_id": shard}
            for n in range(4)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (corpus.parent / f"{shard}.json").write_text(text)
    check(open_source([str(corpus.parent / "*.json")]), 8, least=2)


@pytest.mark.parametrize("order", [1, -1])
def test_what_several_inputs_lead_to_is_in_one_part(corpus, order):
    (corpus / "calls.csv").write_text("path,take\nday-0/0.wav,1\n")
    inputs = [str(corpus / "calls.csv"), str(corpus), str(corpus / "**" / "*.wav")]
    inputs += [str(corpus / "day-1"), str(corpus / "day-1" / "1.wav")]
    source = open_source(inputs[::order])
    check(source, 4, least=4)


@pytest.mark.parametrize(
    ("root", "name", "listed"),
    [
        ("", "new.wav", True),
        ("", "sub/new.flac", True),
        ("", ".hidden/new.wav", False),
        ("", "new.txt", False),
        ("", "new.raw", True),  # by --include
        ("/*.wav", "new.wav", True),
        ("/*.wav", "sub/new.wav", False),
        ("/**/.hidden/*.wav", "a/.hidden/new.wav", True),
    ],
)
def test_a_folder_covers_what_it_would_list(corpus, root, name, listed):
    for old in ("old.wav", "a/.hidden/old.wav"):
        write_audio(corpus / old, [0.0] * 800)
    path = corpus / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(b"")
    source = open_source([f"{corpus}{root}"], InputOptions(include=("*.raw",)))
    assert (str(path) in identities(source)) is listed
    assert source.covers([Recording(str(path))]).tolist() == [listed]
