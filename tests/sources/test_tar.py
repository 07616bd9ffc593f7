"""Tar shards as input: a row for every member, read where it lies, whatever the shard is like."""

import gzip
import io
import json
import os
import tarfile
from contextlib import closing
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
import webdataset

from ser_core.errors import CorpusError, RecordingError, RunError, Status
from ser_core.sources import shard as shards
from ser_core.sources import sidecars, tar
from ser_core.sources.forms import open_source, read_members
from ser_core.sources.interface import InputOptions
from ser_core.sources.packed_file import PackedFile
from ser_core.sources.shard import Shard
from ser_core.storage.reading import Stopwatch

CORPUS = Path(__file__).parents[2] / "examples" / "corpus"
FORMS = ["shard.tar", "shard.tar.gz", "shard.tgz", "shard.tar.zst"]


@pytest.fixture(params=FORMS)
def form(request):
    return request.param


def contents(*recordings):
    """What is read of members of one shard."""
    uri = recordings[0].uri if recordings else ""
    return list(read_members(uri, recordings, Stopwatch()))


def pages_of(*uris, **options):
    return list(open_source([*map(str, uris)], InputOptions(**options)).pages())


def recordings_of(*uris, **options):
    return [each for page in pages_of(*uris, **options) for each in page.recordings]


def rows_of(*uris):
    return [row for page in pages_of(*uris) for row in page.columns.to_pylist()]


def unseen_of(*uris):
    return [place for page in pages_of(*uris) for place in page.unseen]


def statuses(results):
    return [r.status if isinstance(r, RecordingError) else Status.OK for r in results]


def compress(data: bytes, path: Path) -> str:
    """Writes a tar file in the compression of its name."""
    if path.name.endswith(("gz", "tgz")):
        data = gzip.compress(data, 1)
    elif path.name.endswith("zst"):
        data = pa.Codec("zstd").compress(data, asbytes=True)
    path.write_bytes(data)
    return str(path)


def tar_of(members, pad=True, **options) -> bytes:
    """A tar file of (name or TarInfo, content)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as archive:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if info.isreg() and not info.size:
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue() if pad else buffer.getvalue()[: archive.offset - 1024]


def link(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


# ---- what WebDataset writes ----------------------------------------------------------------------


def write_shards(folder: Path, samples, pattern="shard-%06d.tar", per_shard=1000) -> list[Path]:
    with webdataset.ShardWriter(str(folder / pattern), maxcount=per_shard, verbose=0) as writer:
        for sample in samples:
            writer.write(sample)
    return sorted(folder.glob("shard-*"))


@pytest.mark.parametrize("pattern", ["shard-%06d.tar", "shard-%06d.tar.gz"])
def test_webdataset_shards_are_the_same_recordings_as_a_folder(tmp_path, pattern):
    plain = {path.stem: path for path in sorted(CORPUS.rglob("*.wav"))}
    samples = (
        {
            "__key__": key,
            "wav": path.read_bytes(),
            "json": {"speaker": f"{number:03}", "take": number},
            "txt": f"句 {number}",
        }
        for number, (key, path) in enumerate(plain.items())
    )
    paths = write_shards(tmp_path, samples, pattern, per_shard=3)
    assert len(paths) > 2

    pages = pages_of(f"{tmp_path}/shard-*{pattern[10:]}")
    recordings = [each for page in pages for each in page.recordings]
    rows = [row for page in pages for row in page.columns.to_pylist()]
    assert [each.member for each in recordings] == [f"{key}.wav" for key in plain]
    assert rows == [
        {"speaker": f"{n:03}", "take": f"{n}", "txt": f"句 {n}", "other": None}
        for n in range(len(plain))
    ]
    assert not any(page.unseen or page.skipped for page in pages)
    read = {
        each.member: content
        for path in paths
        for mine in [[r for r in recordings if r.uri == str(path)]]
        for each, content in zip(mine, contents(*mine), strict=True)
    }
    assert read == {f"{key}.wav": path.read_bytes() for key, path in plain.items()}
    assert [each.size for each in recordings] == [p.stat().st_size for p in plain.values()]
    assert recordings[0].path == f"{paths[0]}::{recordings[0].member}"


def test_any_part_of_a_shard_can_be_read(tmp_path, form):
    """As a resumed run does, and one that decodes a shard in blocks."""
    members = [(f"{n}.wav", bytes([n]) * (n * 700)) for n in range(20)]
    uri = compress(tar_of(members), tmp_path / form)
    recordings = recordings_of(uri)
    for some in ([3, 4, 11], [19], list(range(20)), [0]):
        read = contents(*(recordings[n] for n in some))
        assert read == [members[n][1] for n in some]


def test_file_ids_are_stable_until_the_shard_changes(tmp_path, form):
    uri = compress(tar_of([("1.wav", b"one"), ("2.wav", b"two")]), tmp_path / form)
    first = [each.file_id for each in recordings_of(uri)]
    assert len(set(first)) == 2
    assert [each.file_id for each in recordings_of(uri)] == first
    # The header is the same: tar has no checksum of the content, and the writer gave no time.
    compress(tar_of([("1.wav", b"one"), ("2.wav", b"TWO")]), tmp_path / form)
    assert not set(first) & {each.file_id for each in recordings_of(uri)}


def test_a_folder_with_the_name_of_a_shard_is_a_folder(tmp_path):
    (tmp_path / "odd.tar").mkdir()
    (tmp_path / "odd.tar" / "a.wav").write_bytes(b"x")
    assert [each.member for each in recordings_of(tmp_path / "odd.tar")] == [None]


# ---- names ---------------------------------------------------------------------------------------


def test_which_members_are_recordings(tmp_path):
    names = ["./a.WAV", "b/c.flac", "notes.md", "._a.wav", "_x/d.wav", "tape.raw", "lone.txt"]
    data = tar_of([link("b", tarfile.DIRTYPE), *((name, b"12") for name in names)])
    uri = compress(data, tmp_path / "x.tar")
    (page,) = pages_of(uri)
    assert [each.member for each in page.recordings] == ["./a.WAV", "b/c.flac"]
    assert page.skipped == {".md": 1, ".raw": 1, ".txt": 1}
    assert [each.member for each in recordings_of(uri, include=("*.raw",))][-1] == "tape.raw"


def test_a_shard_without_recordings_is_refused(tmp_path, refusal):
    uri = compress(tar_of([("1.raw", b"x"), ("2.raw", b"x")]), tmp_path / "x.tar")
    assert "there are no recordings, but 2 .raw; add --include" in refusal(uri)
    assert "there are no recordings" in refusal(compress(tar_of([]), tmp_path / "y.tar"))


def test_members_with_the_same_name_each_have_a_row(tmp_path, form):
    names = ["a.wav", "b.wav", "a.wav", "a.wav#2", "a.wav"]
    members = [(name, f"{n}".encode()) for n, name in enumerate(names)]
    members.insert(1, ("a.json", b'{"take": 1}'))
    members.insert(4, ("a.json", b'{"take": 2}'))
    uri = compress(tar_of(members), tmp_path / form)
    recordings = recordings_of(uri)
    assert [each.member for each in recordings] == ["a.wav", "b.wav", "a.wav#2", "a.wav#3"]
    assert len({each.file_id for each in recordings}) == 4
    assert contents(*recordings) == [b"0", b"1", b"2", b"4"]
    assert [row["take"] for row in rows_of(uri)] == ["1", None, "2", None]
    assert recordings_of(uri, include=("*.wav#2",))[3].member == "a.wav#2#2"


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_odd_names(tmp_path, kind):
    gbk = os.fsdecode("中.wav".encode("gbk"))
    names = ["d/" * 150 + "句" * 60 + ".wav", gbk, "a\nb.wav", "e" * 99 + ".wav"]
    members = [(name, f"{n}".encode()) for n, name in enumerate(names)]
    data = tar_of(members, format=kind, encoding="utf-8", errors="surrogateescape")
    for path in ("x.tar", "x.tar.gz"):
        recordings = recordings_of(compress(data, tmp_path / path))
        names[1] = r"\udcd6\udcd0.wav"
        assert [each.member for each in recordings] == names
        assert contents(*recordings) == [b"0", b"1", b"2", b"3"]
        assert all(each.file_id and each.path.encode() for each in recordings)


# ---- sidecars ------------------------------------------------------------------------------------


def values(**files):
    return sidecars.values_of({name: content.encode() for name, content in files.items()})


def test_sidecars_are_text_in_columns_of_their_own():
    assert values(json='{"spk": "007", "n": 1.50, "ok": true, "x": null, "l": ["é"]}') == {
        "spk": "007", "n": "1.5", "ok": "true", "x": None, "l": '["é"]'
    }  # fmt: skip
    assert values(txt="\ufeffhé\n", cls="3") == {"txt": "hé", "cls": "3"}
    taken = values(json='{"label": "sad", "score_x": 1, "path": "p", "start": 0, "_a": 1, "": 2}')
    assert list(taken) == [f"json.{key}" for key in ("label", "score_x", "path", "start", "_a", "")]


@pytest.mark.parametrize(
    "text", ["{", "[1]", '"x"', '{"a": ' * 5000, "[" * 100_000, '{"a": 1' + "0" * 5000 + "}"]
)
def test_json_that_is_no_object_is_kept_as_it_is(text):
    kept = values(json=text)
    assert list(kept) == ["json"]
    assert kept["json"] in (text, text.strip('"'))


def test_text_that_no_column_can_hold_is_escaped():
    assert values(json=r'{"a\ud800": "\udc00", "b": ["\ud800"]}') == {
        r"a\ud800": r"\udc00", "b": r'["\ud800"]'
    }  # fmt: skip
    assert sidecars.values_of({"txt": b"\xd6\xd0"}) == {"txt": r"\xd6\xd0"}


def test_what_has_no_column_is_kept_as_json(tmp_path):
    """A key that only later shards have, one that is too large, and text where there was none."""
    compress(tar_of([("1.wav", b"x"), ("1.json", b'{"a": 1}')]), tmp_path / "0.tar")
    large = b'"' + b"y" * sidecars.MAX_BYTES + b'"'
    later = [("2.wav", b"x"), ("2.json", b'{"a": [2], "b": {"c": 3}}'), ("2.txt", b"hi")]
    later += [("3.wav", b"x"), ("3.json", large), ("4.wav", b"x")]
    compress(tar_of(later), tmp_path / "1.tar")
    assert rows_of(f"{tmp_path}/*.tar") == [
        {"a": "1", "other": None},
        {"a": "[2]", "other": '{"b": "{\\"c\\": 3}", "txt": "hi"}'},
        {"a": None, "other": f'{{"json": "not read: {len(large):,} bytes"}}'},
        {"a": None, "other": None},
    ]


def test_which_sidecar_belongs_to_which_recording(tmp_path):
    members = ["1.left.wav", "1.right.wav", "1.json", "2.json", "2.wav"]
    members += ["corpus.7.wav", "corpus.7.json", "corpus.8.json", "corpus.8.wav", "d/2.wav"]
    data = tar_of((n, json.dumps({"of": n}).encode()) for n in members)
    pages = pages_of(compress(data, tmp_path / "x.tar"))
    paired = {
        each.member: row["of"]
        for page in pages
        for each, row in zip(page.recordings, page.columns.to_pylist(), strict=True)
    }
    assert paired == {
        "1.left.wav": "1.json",
        "1.right.wav": "1.json",
        "2.wav": "2.json",
        "corpus.7.wav": "corpus.7.json",
        "corpus.8.wav": "corpus.8.json",
        "d/2.wav": None,
    }


def test_names_that_all_begin_alike_are_paired_in_bounded_samples(tmp_path, monkeypatch):
    monkeypatch.setattr(tar, "_MAX_PER_KEY", 3)
    names = [f"v1.{n}.{kind}" for n in range(10) for kind in ("json", "wav")]
    uri = compress(tar_of((n, json.dumps({"of": n}).encode()) for n in names), tmp_path / "x.tar")
    assert [row["of"] for row in rows_of(uri)] == [f"v1.{n}.json" for n in range(10)]
    with closing(PackedFile(uri)) as file:
        assert max(len(sample.paths) for sample in tar._samples(Shard(file), [])) == 4


# ---- bad members and bad shards ------------------------------------------------------------------


def test_members_that_are_no_regular_files_are_rows(tmp_path, form):
    members = [
        ("1.wav", b"one"),
        link("2.wav", tarfile.SYMTYPE, "/etc/passwd"),
        link("3.wav", tarfile.LNKTYPE, "1.wav"),
        link("4.wav", tarfile.FIFOTYPE),
        link("5.wav", tarfile.CHRTYPE),
        ("6.wav", b"six"),
    ]
    recordings = recordings_of(compress(tar_of(members), tmp_path / form))
    results = contents(*recordings)
    assert [each.member for each in recordings] == [f"{n}.wav" for n in range(1, 7)]
    assert statuses(results) == [Status.OK, *[Status.DECODE_ERROR] * 4, Status.OK]
    assert results[-1] == b"six"
    assert "not a regular file" in str(results[1])


def test_a_file_with_holes_is_a_row(tmp_path):
    info = tarfile.TarInfo("1.wav")
    info.pax_headers = {"GNU.sparse.map": "0,3", "GNU.sparse.size": "1000000000000"}
    recordings = recordings_of(
        compress(tar_of([(info, b"one"), ("2.wav", b"2")]), tmp_path / "a.tar")
    )
    assert statuses(contents(*recordings)) == [Status.DECODE_ERROR, Status.OK]


def test_a_member_that_is_too_large_is_a_row_and_is_not_read(tmp_path, form, monkeypatch):
    monkeypatch.setattr(shards, "_MAX_MEMBER_BYTES", 1000)
    members = [("1.wav", b"x" * 1000), ("2.wav", b"x" * 1001), ("3.wav", b"3")]
    results = contents(*recordings_of(compress(tar_of(members), tmp_path / form)))
    assert statuses(results) == [Status.OK, Status.TOO_LARGE, Status.OK]
    assert "1,001 bytes" in str(results[1])


def test_a_size_beyond_the_file_costs_no_memory(tmp_path, form):
    huge = tarfile.TarInfo("1.wav")
    huge.size = 1 << 60
    data = huge.tobuf(tarfile.GNU_FORMAT) + b"x" * 1024
    uri = compress(data, tmp_path / form)
    recordings, unseen = recordings_of(uri), unseen_of(uri)
    assert statuses(contents(*recordings)) == [Status.TOO_LARGE]
    assert len(unseen) == 1
    assert unseen[0].startswith(f"{uri}: the shard is cut")


def test_a_shard_that_is_cut_before_its_first_recording_is_refused(tmp_path, refusal, form):
    data = tar_of([("notes.md", b"x"), ("1.wav", b"x")])[:1100]
    assert "the shard is cut" in refusal(compress(data, tmp_path / form))


@pytest.mark.parametrize("at", [200, 512, 600, 1536 + 100, 4 * 512 + 10])
def test_a_shard_that_is_cut(tmp_path, form, at):
    """Three members of two blocks and 700 bytes; the second ends at byte 2560 + 512 + 700."""
    members = [(f"{n}.wav", bytes([65 + n]) * 700) for n in range(3)]
    data = tar_of(members)[: 1536 + at]
    uri = compress(data, tmp_path / form)
    whole = compress(tar_of([("9.wav", b"nine")]), tmp_path / f"whole-{form}")
    recordings = recordings_of(uri, whole)
    mine = [each for each in recordings if each.uri == uri]
    complete = [n for n in range(3) if 1536 * n + 512 + 700 <= len(data)]
    results = contents(*mine)
    assert results[: len(complete)] == [members[n][1] for n in complete]
    assert statuses(results[len(complete) :]) in ([], [Status.TRUNCATED])
    assert recordings[-1].member == "9.wav"
    (place,) = unseen_of(uri, whole)
    assert place.startswith(f"{uri}: the shard is cut: it ends at byte")


def test_a_compressed_file_that_is_cut(tmp_path):
    members = [(f"{n}.wav", os.urandom(100_000)) for n in range(9)]
    for form in FORMS[1:]:
        path = tmp_path / form
        compress(tar_of(members), path)
        path.write_bytes(path.read_bytes()[:500_000])
        recordings = recordings_of(path)
        results = contents(*recordings)
        assert 3 <= len(recordings) <= 5
        assert results[:-1] == [content for _, content in members[: len(recordings) - 1]]
        assert statuses(results[-1:]) == [Status.TRUNCATED]
        assert "the shard is cut" in unseen_of(path)[0]


def test_compressed_data_that_is_damaged(tmp_path):
    members = [(f"{n}.wav", os.urandom(100_000)) for n in range(9)]
    path = tmp_path / "x.tar.gz"
    data = bytearray(gzip.compress(tar_of(members), 1))
    data[500_000:500_100] = bytes(100)
    path.write_bytes(data)
    assert unseen_of(path), "a checksum says that what was read is wrong"
    path.write_bytes(data[:10] + b"\xff" * 1000)
    with pytest.raises(CorpusError, match=r"x\.tar\.gz: the compressed data is damaged"):
        pages_of(path)


def test_a_shard_with_a_damaged_header_is_read_up_to_it(tmp_path, form):
    data = bytearray(tar_of([(f"{n}.wav", b"x") for n in range(3)]))
    data[1024 + 3] ^= 1
    uri = compress(bytes(data), tmp_path / form)
    assert [each.member for each in recordings_of(uri)] == ["0.wav"]
    (place,) = unseen_of(uri)
    assert place == f"{uri}: the shard is damaged at byte 1,024 (bad checksum)"


@pytest.mark.parametrize(
    "data", [b"", b"RIFF" + b"x" * 2000, b"\x1f\x8bxx", b"PK\3\4" * 300, b"\x28\xb5\x2f\xfd"]
)
def test_what_is_no_tar_file_is_refused_or_said(tmp_path, refusal, data):
    (tmp_path / "bad.tar").write_bytes(data)
    assert "the " in refusal(tmp_path / "bad.tar")
    members = [("1.wav", b"x"), ("1.json", b'{"a": 1}')]
    good = compress(tar_of(members), tmp_path / "good.tar")
    for order in ((tmp_path / "bad.tar", good), (good, tmp_path / "bad.tar")):
        assert len(recordings_of(*order)) == 1
        assert rows_of(*order) == [{"a": "1", "other": None}]
        assert unseen_of(*order)[0].startswith(f"{tmp_path}/bad.tar: the ")


def test_a_shard_that_is_gone(tmp_path, refusal):
    compress(tar_of([("1.wav", b"x")]), tmp_path / "1.tar")
    uris = f"{tmp_path}/{{0..2}}.tar"
    assert len(recordings_of(uris)) == 1
    assert unseen_of(uris) == [
        f"{tmp_path}/{n}.tar: there is no such file or folder" for n in (0, 2)
    ]
    assert "no such file" in refusal(tmp_path / "0.tar")
    (recording,) = recordings_of(tmp_path / "1.tar")
    (tmp_path / "1.tar").unlink()
    assert statuses(contents(recording, recording)) == [Status.NOT_FOUND] * 2


def test_a_shard_that_changes_after_it_was_listed(tmp_path, form):
    """The next run lists it anew: what it reads of it then must not pass for what it listed."""
    members = [(f"{n}.wav", bytes(2000)) for n in range(4)]
    uri = compress(tar_of(members), tmp_path / form)
    recordings = recordings_of(uri)
    compress(tar_of([("x.wav", b"y" * 700), *members[:3]]), tmp_path / form)
    results = contents(*recordings)
    assert len(results) == 4
    assert {Status.NOT_FOUND} <= set(statuses(results)) <= {Status.NOT_FOUND, Status.OK}
    assert all(r == bytes(2000) for r in results if isinstance(r, bytes))


def test_a_compressed_shard_that_is_cut_after_it_was_listed(tmp_path):
    members = [(f"{n}.wav", os.urandom(100_000)) for n in range(9)]
    path = tmp_path / "x.tar.gz"
    recordings = recordings_of(compress(tar_of(members), path))
    path.write_bytes(path.read_bytes()[:500_000])
    results = contents(*recordings)
    assert statuses(results)[:4] == [Status.OK] * 4
    assert statuses(results)[5:] == [Status.TRUNCATED] * 4


def test_a_bug_is_no_bad_member(tmp_path, form, monkeypatch):
    recordings = recordings_of(compress(tar_of([("1.wav", b"x")]), tmp_path / form))
    monkeypatch.setattr(Shard, "_read", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        contents(*recordings)


def test_archives_that_were_concatenated_are_read_whole(tmp_path, form):
    data = tar_of([("1.wav", b"1")]) + tar_of([("2.wav", b"2")]) + b"no archive" * 100
    uri = compress(data, tmp_path / form)
    assert contents(*recordings_of(uri)) == [b"1", b"2"]
    assert not unseen_of(uri)


def test_streams_that_were_concatenated_are_read_whole(tmp_path):
    data = tar_of([("1.wav", bytes(5000)), ("2.wav", b"2")])
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(data[:3000]) + gzip.compress(data[3000:]))
    assert contents(*recordings_of(tmp_path / "x.tar.gz")) == [bytes(5000), b"2"]


def hostile_headers():
    """Headers with which tarfile fills memory, goes in circles, or fails with any exception."""
    yield "a negative size", _with_size(b"\xff" * 12)
    yield "a name of 2 GiB", _header("././@LongLink", 2 << 30, tarfile.GNUTYPE_LONGNAME)
    digits = b"1" * (1 << 20)
    yield "an extension of digits", _header("x", len(digits), tarfile.XHDTYPE) + digits
    pax = b"20 size=-1000000000\n"
    yield "a negative size in an extension", _extended(pax)
    yield "a size that is no number", _extended(b"10 size=x\n")
    yield "a length that is no length", _extended(b"0 size=1\n")
    long_name = _header("././@LongLink", 1, tarfile.GNUTYPE_LONGNAME) + b"x".ljust(512, b"\0")
    yield "extensions without end", long_name * 2000
    sparse = b"28 GNU.sparse.major=1\n28 GNU.sparse.minor=0\n".replace(b"28", b"22")
    yield "a map without end", _extended(sparse) + (b"9" * 9 + b"\n" + b"1\n" * 251) * 1000


def _header(name, size, kind=tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def _with_size(field: bytes) -> bytes:
    header = bytearray(_header("9.wav", 0))
    header[124:136] = field
    header[148:156] = b"        "
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header)


def _extended(records: bytes) -> bytes:
    padded = records.ljust(-(-len(records) // 512) * 512, b"\0")
    return _header("x", len(records), tarfile.XHDTYPE) + padded + _header("9.wav", 0)


@pytest.mark.parametrize(("what", "header"), hostile_headers(), ids=lambda value: str(value)[:40])
@pytest.mark.timeout(20)
def test_a_hostile_header_ends_the_listing_in_a_line(tmp_path, form, what, header):
    good = tar_of([("1.wav", b"one")])[:1024]
    uri = compress(good + header + tar_of([("2.wav", b"two")]), tmp_path / form)
    recordings = recordings_of(uri)
    assert contents(*recordings)[0] == b"one", what
    if [each.member for each in recordings][-1] != "2.wav":
        (place,) = unseen_of(uri)
        assert "\n" not in place


# ---- on an object store --------------------------------------------------------------------------


def test_a_shard_on_an_object_store(tmp_path, form):
    members = [(f"{n}.wav", os.urandom(50_000)) for n in range(40)]
    compress(tar_of(members), tmp_path / form)
    fs = fsspec.filesystem("memory")
    fs.put(str(tmp_path / form), f"/shards/{form}")
    uri = f"memory://shards/{form}"
    recordings = recordings_of(uri)
    assert contents(*recordings) == [content for _, content in members]
    assert contents(*recordings[7:9]) == [content for _, content in members[7:9]]


@pytest.fixture
def requests(monkeypatch):
    """The bytes of each request to memory://; those after `requests.most` fail."""
    fetched = Requests()
    fs = fsspec.filesystem("memory")
    fetch = fs.cat_file

    def cat_file(_, path, **span):
        if len(fetched) >= fetched.most:
            raise ConnectionResetError("the store has gone")
        content = fetch(path, **span)
        fetched.append(len(content))
        return content

    monkeypatch.setattr(type(fs), "cat_file", cat_file)
    return fetched


class Requests(list):
    most = 10_000


def test_members_that_follow_each_other_share_requests(requests):
    data = tar_of((f"{n}.wav", bytes(60_000)) for n in range(200))
    fsspec.filesystem("memory").pipe_file("/shards/x.tar", data)
    recordings = recordings_of("memory://shards/x.tar")
    requests.clear()
    assert contents(*recordings) == [bytes(60_000)] * 200
    assert len(requests) <= 4  # for 12 MB
    assert sum(requests) <= len(data)


@pytest.mark.usefixtures("deadline")
@pytest.mark.parametrize("deadline", [0.2], indirect=True)
def test_a_store_that_fails_is_told_from_a_bad_shard(requests, form, tmp_path):
    members = [(f"{n}.wav", os.urandom(300_000)) for n in range(40)]
    compress(tar_of(members), tmp_path / form)
    fsspec.filesystem("memory").put(str(tmp_path / form), f"/shards/{form}")
    uri = f"memory://shards/{form}"
    recordings, source = recordings_of(uri), open_source([uri])
    requests.clear()
    requests.most = 1
    results = contents(*recordings)
    assert results[:10] == [content for _, content in members[:10]]
    unavailable = [Status.UNAVAILABLE] * (len(recordings) - 14)
    assert statuses(results)[14:] == unavailable  # behind the first 4 MiB
    with pytest.raises(RunError, match=f"{uri}: cannot be reached"):
        list(source.pages())
    requests.most = 0
    assert statuses(contents(*recordings)) == [Status.UNAVAILABLE] * 40
