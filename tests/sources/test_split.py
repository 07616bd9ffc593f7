"""Parts of a source, as other processes list them, have the recordings of the whole."""

import json
import pickle
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from recordings import speech_like, write_audio

from ser_core.errors import CorpusError
from ser_core.sources.forms import open_source
from ser_core.sources.interface import InputOptions
from ser_core.sources.recording import Recording
from ser_core.sources.tables import TableFile


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


def test_row_groups_of_a_parquet_file(corpus):
    rows = [{"bytes": b"RIFF", "path": f"{number}.wav"} for number in range(10)]
    table = pa.table({"audio": rows, "take": range(10)})
    pq.write_table(table, corpus / "one.parquet", row_group_size=3)
    source = open_source([str(corpus / "one.parquet")])
    split = check(source, 10, least=4)
    assert [len(identities(part)) for part in split] == [3, 3, 3, 1]
    assert [len(identities(part)) for part in parts(source, 2)] == [6, 4]
    assert len(parts(source, 1)) == 1
    pages = [page for part in split for page in part.pages()]
    takes = [take for page in pages for take in page.columns["take"].to_pylist()]
    named = [int(each.member) for page in pages for each in page.recordings]
    assert takes == named == list(range(10))


def test_a_parquet_file_that_is_replaced_loses_none_of_its_rows(corpus):
    def write(rows):
        table = pa.table({"audio": [b"RIFF"] * rows})
        pq.write_table(table, corpus / "one.parquet", row_group_size=1)

    write(4)
    split = parts(open_source([str(corpus / "one.parquet")]), 4)
    for rows in (7, 2):  # row groups
        write(rows)
        listed = [identity for part in split for identity in identities(part)]
        assert len(listed) == len(set(listed)) == rows
        assert not [page.unseen for part in split for page in part.pages() if page.unseen]


def test_a_parquet_file_whose_columns_do_not_fit_is_named_once(corpus):
    for name, take in {"a": 1, "b": pa.scalar({"x": 1})}.items():
        table = pa.table({"audio": [b"RIFF"] * 3, "take": [take] * 3})
        pq.write_table(table, corpus / f"{name}.parquet", row_group_size=1)
    split = parts(open_source([str(corpus / "*.parquet")]), 64)
    (unseen,) = [place for part in split for page in part.pages() for place in page.unseen]
    assert "the column `take` is" in unseen


def test_a_parquet_file_of_no_use_is_a_part_that_says_so(corpus):
    for name in ("good", "replaced"):
        pq.write_table(pa.table({"audio": [b"RIFF"]}), corpus / f"{name}.parquet")
    pq.write_table(pa.table({"audio": pa.array([], pa.binary())}), corpus / "none.parquet")
    source = open_source([str(corpus / "*.parquet")])
    (corpus / "replaced.parquet").write_bytes(b"no table")
    split = check(source, 1, least=3)
    (unseen,) = [place for part in split for page in part.pages() for place in page.unseen]
    assert unseen.startswith(str(corpus / "replaced.parquet"))


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


@pytest.fixture
def nemo(tmp_path):
    """Writes a shard with some members, and manifests that name members of it."""
    for name in ("a.wav", "b.wav", "utterance", "_c.wav"):
        (tmp_path / name).write_bytes(b"x")
    with tarfile.open(tmp_path / "audio_0.tar", "w") as tar:
        for name in ("a.wav", "b.wav", "a.wav", "utterance", "_c.wav"):
            tar.add(tmp_path / name, name)

    def write(name, *rows):
        lines = (json.dumps({"shard_id": 0, "take": 1, **row}) + "\n" for row in rows)
        (tmp_path / name).write_text("".join(lines))
        return str(tmp_path / name)

    return str(tmp_path / "audio_0.tar"), write


def test_a_recording_in_several_tarred_manifests_is_in_one_part(nemo):
    _, write = nemo
    first = write("1.json", {"audio_filepath": "a.wav"})
    second = write(
        "2.json", {"audio_filepath": "a.wav", "take": 2}, {"audio_filepath": "b.wav", "take": 3}
    )
    third = write("3.json", {"audio_filepath": "a.wav"})
    source = open_source([first, second, third])
    check(source, 2, least=3)
    assert [page.columns["take"].to_pylist() for page in source.pages()] == [[1], [3]]
    assert [len(source.split(parts)) for parts in (1, 2, 3, 100)] == [1, 2, 3, 3]


@pytest.mark.parametrize("order", [1, -1])
def test_a_shard_covers_only_what_it_lists(nemo, order):
    shard, write = nemo
    rows = [{"audio_filepath": name} for name in ("a.wav", "a.wav#2", "utterance", "_c.wav")]
    names = write("names.json", *rows)
    stretches = write("stretches.json", {"audio_filepath": "b.wav", "offset": 1, "duration": 2})
    listed = identities(open_source([shard])) + identities(open_source([names, stretches]))
    assert len(listed) == 3 + 5
    check(open_source([shard, names, stretches][::order]), len(set(listed)), least=2)


@pytest.mark.parametrize("order", [1, -1])
def test_a_folder_does_not_cover_the_members_of_a_shard_in_it(corpus, order):
    with tarfile.open(corpus / "calls.tar", "w") as tar:
        tar.add(corpus / "day-0" / "0.wav", "member.wav")
    check(open_source([str(corpus), str(corpus / "calls.tar")][::order]), 5, least=2)


def test_a_shard_does_not_cover_itself_as_a_recording(nemo):
    shard, _ = nemo
    folder = shard.rpartition("/")[0]
    options = InputOptions(include=("*.tar",))
    found = identities(open_source([shard, folder], options))
    assert shard in found
    assert len(found) == len(set(found))


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


def test_nothing_behind_a_link_is_taken_for_listed(corpus):
    (corpus / "x1").symlink_to(corpus / "day-0")
    write_audio(corpus / "x2" / "9.wav", [0.0] * 800)
    source = open_source([str(corpus / "x*" / "*.wav"), str(corpus / "x1" / "0.wav")])
    found = [identity for part in source.split(4) for identity in identities(part)]
    assert str(corpus / "x1" / "0.wav") in found


@pytest.mark.parametrize("nothing", ["empty", "*.wva"])
def test_an_input_without_recordings_is_named_before_its_parts_are_listed(corpus, nothing):
    (corpus / "empty").mkdir()
    for inputs in ([str(corpus), str(corpus / nothing)], [str(corpus / "day-0" / "0.wav")]):
        source = open_source([*inputs, str(corpus / nothing)])
        with pytest.raises(CorpusError, match=f"{nothing.strip('*')}: (there|no)"):
            source.split(4)


def test_a_manifest_is_read_once_for_all_parts(corpus, monkeypatch):
    (corpus / "calls.csv").write_text("path\nday-0/0.wav\n")
    source = open_source([str(corpus / "calls.csv"), str(corpus / "day-0"), str(corpus / "day-1")])
    split = parts(source)
    monkeypatch.setattr(TableFile, "read", None)
    found = [identity for part in split[1:] for identity in identities(part)]
    assert len(found) == 3
