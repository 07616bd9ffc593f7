"""Parts of a prefix on a real S3 server: together they are all objects, whatever the names."""

import pickle

import pytest
import s3fs

from ser_core.sources.forms import open_source
from ser_core.storage import prefixes
from ser_core.storage.listing import list_files, list_part
from ser_core.storage.prefixes import divide

NAMES = [
    *(f"train/speaker-{n}/{m}.wav" for n in range(5) for m in range(3)),
    *(f"test/{n}.wav" for n in range(4)),
    "0.wav", "tested.wav", "zz.wav", "测试/一.wav", "a b/c+d.wav", "train.wav", "train-2/1.wav",
    "é/1.wav", "_hidden/1.wav",
    "a%2Fb/1.wav", "x#y/1.wav", "q~z/1.wav", "[1]/1.wav", "w*/1.wav",
    "train/speaker-1.wav", "test/notes.txt",
]  # fmt: skip


@pytest.fixture(scope="module")
def prefix(bucket):
    fs = s3fs.S3FileSystem()
    for name in NAMES:
        fs.pipe_file(f"{bucket}/corpus/{name}", b"x")
        fs.pipe_file(f"{bucket}/corpus-2/{name}", b"x")  # beside it
    return f"{bucket}/corpus"


def listed(prefix):
    return [entry.path for entry in list_files(prefix, lambda _: True, hidden=True)]


def listed_part(part):
    return [entry.path for entry in list_part(part, lambda _: True, hidden=True)]


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 8, 100])
def test_parts_are_all_objects_and_none_twice(prefix, parts):
    divided = divide(prefix, parts, hidden=True)
    assert len(divided) <= parts
    found = [path for part in divided for path in listed_part(part)]
    assert sorted(found) == sorted(listed(prefix)) == sorted(f"{prefix}/{n}" for n in NAMES)


def test_sub_prefixes_are_divided_further(prefix):
    assert len(divide(prefix, 4, hidden=True)) == 4
    parts = divide(prefix, 100, hidden=True)
    assert [len(listed_part(part)) for part in parts if "speaker" in part.prefix] == [3] * 5
    assert not any("_hidden" in part.prefix for part in divide(prefix, 100, hidden=False))


def test_a_flat_prefix_is_one_part_after_a_page(prefix, monkeypatch):
    monkeypatch.setattr(prefixes, "_MAX_FILES", 2)
    (part,) = divide(f"{prefix}/test", 100, hidden=False)
    assert len(listed_part(part)) == 5


def test_the_parts_of_a_prefix_list_its_recordings(prefix):
    source = open_source([prefix])
    whole = [each.identity for page in source.pages() for each in page.recordings]
    parts = [pickle.loads(pickle.dumps(part)) for part in source.split(100)]
    assert len(parts) >= 11
    pages = [page for part in parts for page in part.pages()]
    assert sorted(each.identity for page in pages for each in page.recordings) == sorted(whole)
    assert sum(page.skipped.get(".txt", 0) for page in pages) == 1
    visible = [name for name in NAMES if name.endswith(".wav") and name[0] != "_"]
    assert len(whole) == len(visible)
