"""A manifest as input: its paths and columns, or a one-line message if it cannot be used."""

import gzip
import io
import json
import os
import time

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from listed_rows import listed_rows
from misbehaving_store import BUCKET
from recordings import write_manifest

from ser_core.errors import CorpusError, RunError, UsageError
from ser_core.sources import manifest, text_files
from ser_core.sources.forms import open_source
from ser_core.sources.interface import InputOptions
from ser_core.sources.manifest import recording_uris
from ser_core.sources.outside import refuse_paths_outside


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_manifest(folder, suffix, listed):
    frame = pd.DataFrame(
        {
            "speaker": ["007", "8", "九", "x"],
            "path": ["a.wav", str(folder / "deep/er/b.FLAC"), "名 字+#%.mp3", "gone.wav"],
            "take": [1, 2, 3, 4],
        }
    )
    table = listed(write_manifest(frame, folder / f"calls{suffix}"))
    assert list(table["path"]) == list(frame["path"])  # as in the manifest
    absolute = [str(folder / name) for name in (*frame["path"][:3], "gone.wav")]
    assert list(table["uri"]) == absolute
    assert list(table["speaker"]) == list(frame["speaker"])
    assert list(table["take"]) == ([*"1234"] if suffix == ".csv" else [1, 2, 3, 4])
    assert list(table["size"][:3]) == [5, 5, 5]  # relative to the manifest
    assert pd.isna(table["size"][3])


def test_all_spellings_of_a_path_have_one_identity(folder, listed):
    names = ["a.wav", "./a.wav", "deep/../a.wav", str(folder / "a.wav"), f"file://{folder}/a.wav"]
    (by_folder,) = [row for row in listed(folder).itertuples() if row.path.endswith("a.wav")]
    for name in names:
        (row,) = listed(
            write_manifest(pd.DataFrame({"path": [name]}), folder / "m.csv")
        ).itertuples()
        assert (row.path, row.uri, row.file_id) == (name, by_folder.uri, by_folder.file_id)


def test_equal_relative_paths_in_two_folders_are_two_recordings(tmp_path, listed):
    uris = []
    for day in ("monday", "tuesday"):
        (tmp_path / day).mkdir()
        (tmp_path / day / "1.wav").write_bytes(b"same")
        os.utime(tmp_path / day / "1.wav", ns=(1, 1))
        manifest = write_manifest(pd.DataFrame({"path": ["1.wav"]}), tmp_path / day / "m.csv")
        uris += [(row.path, row.uri, row.file_id) for row in listed(manifest).itertuples()]
    assert uris[0][0] == uris[1][0] == "1.wav"
    assert uris[0][1] != uris[1][1]
    assert uris[0][2] != uris[1][2]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_invalid_manifests_are_refused(tmp_path, suffix, refusal):
    path = tmp_path / f"m{suffix}"
    message = refusal(write_manifest(pd.DataFrame({"sound": ["a.wav"]}), path))
    assert "has no column `path` or `audio_filepath` or `wav` or `audio` or `file`" in message
    assert message.endswith("; it has sound; --path-column names another")
    many = pd.DataFrame({f"column {n}": ["x"] for n in range(1000)})
    assert len(refusal(write_manifest(many, path))) < 1000
    twice = pd.DataFrame({"path": ["a.wav", "b.wav", "a.wav"]})
    assert refusal(write_manifest(twice, path)).endswith("has a recording twice: a.wav")
    for other in ("x/../a.wav", "a.wav/"):
        twice = pd.DataFrame({"path": ["a.wav", "b.wav", other]})
        assert refusal(write_manifest(twice, path)).endswith(f"twice: a.wav and {other}")
    null = pd.DataFrame({"path": ["a.wav", None], "x": ["1", "2"]})
    assert refusal(write_manifest(null, path)).endswith("row 2 has no path")
    nul = pd.DataFrame({"path": ["a.wav", "b\0.wav"]})
    assert r"row 2: the path 'b\x00.wav' contains a NUL character" in refusal(
        write_manifest(nul, path)
    )
    path.write_bytes(b"\xff\xfe\x00 not a table \x00" * 9)
    assert "the manifest cannot be read" in refusal(path)
    path.write_bytes(b"")
    assert refusal(path)


def test_rows_are_counted_across_pages(tmp_path, refusal):
    lines = [f"{n}.wav," for n in range(25_000)]
    (tmp_path / "m.csv").write_text("\n".join(["path,offset", *lines, ",", ""]))
    assert refusal(tmp_path / "m.csv").endswith("row 25001 has no path")
    (tmp_path / "m.csv").write_text("\n".join(["path,offset", *lines, "x.wav,late"]))
    assert "row 25001: `offset`: 'late' is not a time" in refusal(tmp_path / "m.csv")


@pytest.mark.parametrize("text", ["", "\n\n", "path,x\n", "\ufeff"])
@pytest.mark.parametrize("name", ["m.csv", "m.tsv", "m.jsonl", "m.json"])
def test_a_manifest_without_rows_is_refused(tmp_path, text, name, refusal):
    if "json" in name and "path" in text:
        text = "[]"
    (tmp_path / name).write_text(text)
    assert refusal(tmp_path / name).endswith("the manifest has no rows")


def test_what_is_no_table_is_refused_in_one_line(tmp_path, refusal):
    for name, content, reason in [
        ("m.jsonl", b'{"path": "a.wav"}\n{"path": \n', "(line 2: Expecting value at character 11)"),
        ("m.csv", b"path,x\na.wav\n", "(line 2: 1 fields instead of 2)"),
        ("m.csv", "path\n名字.wav\n".encode("gbk"), "(it is not text in UTF-8: "),
        ("m.json", b'{"path": "a", "\\ud800": 1}', "(it is not text in UTF-8: "),
        ("m.csv.gz", gzip.compress(b"path\n" + bytes(range(256)) * 9)[:-20], "(Truncated"),
        ("m.jsonl.zst", b"no", "(ZSTD decompress failed"),
        ("m.csv", b"path,path\na.wav,b.wav\n", "(more than one column `path`)"),
        ("m.csv", b"path,x,x\na.wav,b,c\n", "(more than one column `x`)"),
    ]:
        (tmp_path / name).write_bytes(content)
        assert f"the manifest cannot be read {reason}" in refusal(tmp_path / name)


@pytest.mark.parametrize(
    "path", [1, 1.5, float("nan"), True, pd.Timestamp("2020-01-01"), ["a.wav"]]
)
def test_paths_are_text(tmp_path, path, refusal):
    write_manifest(pd.DataFrame({"path": [path, path]}), tmp_path / "m.parquet")
    assert "the column `path` is not text but " in refusal(tmp_path / "m.parquet")
    value = "NaN" if path != path else json.dumps(path, default=lambda _: 1577836800)  # noqa: PLR0124
    (tmp_path / "m.jsonl").write_text(f'{{"path": {value}}}\n')
    assert "the column `path` is not text but " in refusal(tmp_path / "m.jsonl")


# ---- columns -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_the_first_of_the_usual_names_is_the_column_of_paths(folder, suffix):
    frame = pd.DataFrame({"x": ["y"]})
    for name in ("file", "audio", "wav", "audio_filepath", "path"):
        frame[name] = ["a.wav" if name == "path" else f"of {name}"]
        (row,) = listed_rows(write_manifest(frame, folder / f"m{suffix}"))
        assert row["path"] == frame[name][0]
        own = {key: value for key, value in row.items() if key not in ("start", "duration", "path")}
        assert own == {key: frame[key][0] for key in frame if key != name}


def test_a_column_of_paths_that_was_named(folder):
    frame = pd.DataFrame({"wav": ["no"], "sound": ["a.wav"]})
    manifest = write_manifest(frame, folder / "m.csv")
    (row,) = listed_rows(manifest, path_column="sound")
    assert row == {"path": "a.wav", "start": None, "duration": None, "wav": "no"}
    with pytest.raises(CorpusError) as caught:
        listed_rows(manifest, path_column="sounds")
    assert str(caught.value).endswith(
        "m.csv: the manifest has no column `sounds`; it has wav, sound"
    )


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_duration_alone_is_no_stretch(folder, suffix):
    """NeMo states it in every line; the output has its own."""
    frame = pd.DataFrame({"path": ["a.wav"], "duration": ["unknown"], "end": ["x"]})
    (row,) = listed_rows(write_manifest(frame, folder / f"m{suffix}"))
    assert row == {"path": "a.wav", "start": None, "duration": None, "end": "x"}


def test_nested_columns_ride_along(folder):
    values = [{"path": "a.wav", "custom": {"snr": 3.5, "tags": ["x"]}, "n": 7}]
    (folder / "m.jsonl").write_text("".join(json.dumps(value) + "\n" for value in values))
    (row,) = listed_rows(folder / "m.jsonl")
    assert row["custom"] == {"snr": 3.5, "tags": ["x"]}
    assert row["n"] == 7


# ---- several manifests ---------------------------------------------------------------------------


def test_the_columns_of_several_manifests_are_united(folder):
    (folder / "1.jsonl").write_text('{"path": "a.wav", "n": 1, "only": true, "nothing": null}\n')
    (folder / "2.csv").write_text("wav;n;path2\nb.wav;x;y\n")
    (folder / "3.jsonl").write_text('{"path": "c.wav", "n": 2.0, "nothing": [1]}\n')
    source = manifest.open_source(
        [str(folder / name) for name in ("1.jsonl", "2.csv", "3.jsonl")], InputOptions()
    )
    pages = list(source.pages())
    assert [page.recordings[0].path for page in pages] == ["a.wav", "b.wav", "c.wav"]
    assert pa.concat_tables([page.columns for page in pages]).to_pylist() == [
        {"n": "1", "only": True, "nothing": None, "path2": None},
        {"n": "x", "only": None, "nothing": None, "path2": "y"},
        {"n": "2.0", "only": None, "nothing": [1], "path2": None},
    ]
    assert all(page.columns.schema.equals(source.columns) for page in pages)


def test_a_column_of_paths_does_not_ride_along_from_another_manifest(folder):
    (folder / "1.csv").write_text("path,wav\na.wav,z\n")
    (folder / "2.csv").write_text("wav\nb.wav\n")
    rows = listed_rows(folder / "1.csv", folder / "2.csv")
    assert [(row["path"], row["wav"]) for row in rows] == [("a.wav", "z"), ("b.wav", None)]


def test_a_recording_of_two_manifests_is_refused(folder):
    for name in ("deep/1.csv", "2.csv"):
        (folder / name).write_text(f"path\n{name}.wav\n{folder}/a.wav\n")
    first, second = str(folder / "deep/1.csv"), str(folder / "2.csv")
    with pytest.raises(CorpusError) as caught:
        manifest.open_source([first, second], InputOptions())
    assert str(caught.value) == (
        f"--input {second}: a recording is in {first}, too: {folder}/a.wav"
    )


def test_the_manifest_at_fault_is_named(folder):
    (folder / "1.csv").write_text("path\na.wav\n")
    (folder / "2.jsonl").write_text("{")
    for name in ("2.jsonl", "gone.csv"):
        with pytest.raises(CorpusError, match=f"--input {folder}/{name}: "):
            listed_rows(folder / "1.csv", folder / name)


def test_text_in_any_encoding_is_a_path(folder, listed):
    for kind in (pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())):
        table = pa.table({"path": pa.array(["a.wav"]).cast(kind)})
        pq.write_table(table, folder / "m.parquet")
        assert list(listed(folder / "m.parquet")["size"]) == [5]


def test_a_path_that_looks_like_a_date_stays_as_it_is(folder, listed):
    (folder / "m.jsonl").write_text('{"path": "2020-01-01"}\n{"path": "2020-01-02 10:00:00"}\n')
    assert list(listed(folder / "m.jsonl")["path"]) == ["2020-01-01", "2020-01-02 10:00:00"]


def test_a_parquet_manifest_with_a_damaged_footer_is_refused(tmp_path, refusal):
    path = tmp_path / "m.parquet"
    write_manifest(pd.DataFrame({"path": ["a.wav"]}), path)
    content = bytearray(path.read_bytes())
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    content[footer : footer + 20] = b"\xff" * 20
    path.write_bytes(content)
    with pytest.raises(OSError):  # noqa: PT011 (pyarrow raises what a disk raises)
        pq.ParquetFile(path)
    assert "the manifest cannot be read" in refusal(path)


def test_a_parquet_file_with_audio_in_it_is_no_manifest(tmp_path):
    path = tmp_path / "m.parquet"
    assert manifest.recognizes(str(path))  # opening it says that it is not there
    for table, is_manifest in [
        (pa.table({"audio": ["a.wav"]}), True),
        (pa.table({"audio": [{"bytes": b"x", "path": "a.wav"}]}), False),
    ]:
        pq.write_table(table, path)
        assert manifest.recognizes(str(path)) == is_manifest
    path.write_bytes(b"PAR1")
    assert manifest.recognizes(str(path))


def test_a_tarred_manifest_is_another_form(tmp_path):
    path = tmp_path / "m.json"
    assert manifest.recognizes(str(path))  # opening it says that it is not there
    for row, is_manifest in [
        ({"audio_filepath": "a.wav"}, True),
        ({"audio_filepath": "a.wav", "shard_id": 0}, False),
    ]:
        path.write_text(json.dumps(row))
        assert manifest.recognizes(str(path)) == is_manifest


# ---- files outside its folder --------------------------------------------------------------------


@pytest.fixture
def corpus(tmp_path):
    """A folder with recordings beside another one, and links between them."""
    for name in ("calls/1.wav", "calls/monday/2.wav", "private/3.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "calls/file.wav").symlink_to(tmp_path / "private/3.wav")
    (tmp_path / "calls/folder").symlink_to(tmp_path / "private")
    (tmp_path / "calls/chain.wav").symlink_to("file.wav")
    (tmp_path / "calls/within.wav").symlink_to("monday/2.wav")
    (tmp_path / "calls/gone.wav").symlink_to(tmp_path / "private/nothing.wav")
    (tmp_path / "linked").symlink_to(tmp_path / "calls")
    return tmp_path / "calls"


def manifest_of(folder, *paths):
    return write_manifest(pd.DataFrame({"path": paths}), folder / "m.csv")


OUTSIDE = {
    "x/y://../../../private/3.wav": "is outside its folder",
    "../private/3.wav": "is outside its folder",
    "monday/../../private/3.wav": "is outside its folder",
    "../calls2/1.wav": "is outside its folder",
    "s3://bucket/1.wav": "is on other storage",
    "memory://1.wav": "is on other storage",
    "simplecache::file:///etc/passwd": "is on other storage",
    "file.wav": "is a link to ",
    "folder/3.wav": "is a link to ",
    "chain.wav": "is a link to ",
    "gone.wav": "is a link to ",
}


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_path_that_leads_outside_is_refused(corpus, path, refusal):
    message = refusal(manifest_of(corpus, "1.wav", path))
    assert f"names {path}, which {OUTSIDE[path]}" in message
    assert message.endswith("add --allow-outside if that is meant")


@pytest.mark.parametrize("path", [p for p, why in OUTSIDE.items() if "storage" not in why])
def test_a_path_may_lead_outside_if_that_is_meant(corpus, path):
    source = open_source([manifest_of(corpus, "1.wav", path)], InputOptions(allow_outside=True))
    (page,) = source.pages()
    assert [recording.path for recording in page.recordings] == ["1.wav", path]


def test_usual_paths_stay_inside(corpus, listed):
    other = corpus.parent / "private" / "3.wav"
    names = ["1.wav", "./monday/2.wav", "monday/../within.wav", str(other), "a..b.wav"]
    sizes = listed(manifest_of(corpus, *names))["size"]
    assert list(sizes[:4]) == [1, 1, 1, 1]  # an absolute path says plainly where it leads
    linked = listed(manifest_of(corpus.parent / "linked", "1.wav", "monday/2.wav"))
    assert list(linked["size"]) == [1, 1]  # the folder of the manifest may itself be a link


def test_a_remote_manifest_does_not_name_files_of_the_machine(refusal):
    fs = fsspec.filesystem("memory")
    for path, why in [
        ("/etc/passwd", "is on other storage"),
        ("file:///etc/passwd", "is on other storage"),
        ("../private/3.wav", "is outside its folder"),
        ("../../../../etc/passwd", "is outside its folder"),
    ]:
        fs.pipe_file("/calls/m.csv", f"path\n1.wav\n{path}\n".encode())
        assert f"names {path}, which {why}" in refusal("memory://calls/m.csv")
    fs.pipe_file("/calls/m.csv", b"path\n1.wav\nmonday/../2.wav\nmemory://other/3.wav\n")
    assert [len(page.recordings) for page in open_source(["memory://calls/m.csv"]).pages()] == [3]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("%2e%2e/secret.wav", "is outside its folder"),
        ("%2E./%2e%2e%2fsecret.wav", "is outside its folder"),
        ("http://other/my%20calls/1.wav", "is on other storage"),
        ("http://host:81/my%20calls/1.wav", "is on other storage"),
        ("https://host/1.wav", "is on other storage"),
        ("a%20b%2e.wav", None),
        ("http://HOST/other/1.wav", None),
    ],
)
def test_paths_of_a_manifest_on_a_web_server(path, why):
    manifest = "http://host/my%20calls/m.csv"
    uris = recording_uris(manifest, [path])
    if why is None:
        refuse_paths_outside(manifest, [path], uris, allowed=False)
        return
    with pytest.raises(CorpusError, match=why):
        refuse_paths_outside(manifest, [path], uris, allowed=False)


@pytest.mark.parametrize("allow", [False, True])
@pytest.mark.parametrize("path", ["ftp://me:s3cr3t@host/1.wav", "https://host/1.wav?sig=s3cr3t"])
def test_a_path_with_a_secret_is_refused_without_showing_it(corpus, path, allow):
    with pytest.raises(UsageError) as caught:
        open_source([manifest_of(corpus, path)], InputOptions(allow_outside=allow))
    assert "s3cr3t" not in str(caught.value)


def test_storage_that_fails_amid_a_compressed_manifest_is_not_taken_for_bad_content(
    tmp_path, monkeypatch, refusal
):
    class Broken(io.BytesIO):
        def read(self, _size=-1):
            if self.tell() > 0:
                raise TimeoutError("no answer")
            return super().read(10)

        read1 = read

    plain = b"path\na.wav\n"
    for name, content in (("m.csv.gz", gzip.compress(plain)), ("m.csv", plain)):
        monkeypatch.setattr(text_files, "open_table", lambda _, content=content: Broken(content))
        assert "cannot be reached (no answer" in refusal(tmp_path / name, RunError)


# ---- storage that fails --------------------------------------------------------------------------


def upload_manifest(store, count):
    names = [f"{n}.wav" for n in range(count)]
    store.objects = dict.fromkeys(names, b"x")
    store.objects["m.csv"] = ("path\n" + "\n".join(names)).encode()
    return f"s3://{BUCKET}/m.csv"


@pytest.mark.parametrize("deadline", [1.0], indirect=True)
@pytest.mark.parametrize("fault", ["silent", 503])
def test_a_store_that_is_down_ends_the_listing_soon(store, deadline, fault, refusal):
    manifest = upload_manifest(store, 5000)
    store.fault = lambda key, _: fault if key.endswith(".wav") else None
    started = time.monotonic()
    assert "cannot be reached" in refusal(manifest, RunError)
    assert time.monotonic() - started < 3 * deadline + 60  # and not 5,000 / 32 deadlines


@pytest.mark.parametrize("deadline", [1.0], indirect=True)
@pytest.mark.usefixtures("deadline")
def test_a_store_that_goes_down_ends_the_listing(store, refusal):
    manifest = upload_manifest(store, 500)
    store.fault = lambda key, _: "silent" if len(store.requests) > 200 and key else None
    assert "cannot be reached" in refusal(manifest, RunError)


@pytest.mark.parametrize("deadline", [6.0], indirect=True)  # in which all the others answer
@pytest.mark.usefixtures("deadline")
def test_one_object_that_does_not_answer_does_not_end_the_listing(store, listed):
    manifest = upload_manifest(store, 50)
    store.fault = lambda key, _: "silent" if key == "7.wav" else None
    sizes = listed(manifest)["size"]
    assert list(sizes[sizes.isna()].index) == [7]


def test_a_file_is_asked_for_once_whatever_the_number_of_its_stretches(store):
    names = [f"{n}.wav" for n in range(3)]
    store.objects = dict.fromkeys(names, b"x")
    rows = [f"{name},{start}" for name in names for start in range(15_000)]  # on several pages
    store.objects["m.csv.gz"] = gzip.compress("\n".join(["path,start", *rows]).encode())
    assert len(listed_rows(f"s3://{BUCKET}/m.csv.gz")) == 45_000
    asked = [str(request) for request in store.requests if ".wav" in str(request)]
    assert len(asked) == 3


def test_a_busy_store_leaves_no_size_out(store, listed):
    manifest = upload_manifest(store, 50)
    store.fault = lambda key, attempt: 503 if attempt == 1 and key.endswith("1.wav") else None
    assert set(listed(manifest)["size"]) == {1}
