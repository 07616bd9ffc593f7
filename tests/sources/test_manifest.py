"""A manifest as input: its paths and columns, or a one-line message if it cannot be used."""

import json
import os
import time

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from misbehaving_store import BUCKET
from recordings import write_manifest

from ser_core.errors import CorpusError, RunError, UsageError
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
    assert "no column `path` (file)" in refusal(
        write_manifest(pd.DataFrame({"file": ["a.wav"]}), path)
    )
    twice = pd.DataFrame({"path": ["a.wav", "b.wav", "a.wav"]})
    assert refusal(write_manifest(twice, path)).endswith("has a recording twice: a.wav")
    for other in ("x/../a.wav", "a.wav/"):
        twice = pd.DataFrame({"path": ["a.wav", "b.wav", other]})
        assert refusal(write_manifest(twice, path)).endswith(f"twice: a.wav and {other}")
    null = pd.DataFrame({"path": ["a.wav", None], "x": ["1", "2"]})
    assert "a row has no path" in refusal(write_manifest(null, path))
    nul = pd.DataFrame({"path": ["a.wav", "b\0.wav"]})
    assert r"the path 'b\x00.wav' contains a NUL character" in refusal(write_manifest(nul, path))
    path.write_bytes(b"\xff\xfe\x00 not a table \x00" * 9)
    assert refusal(path)
    path.write_bytes(b"")
    assert refusal(path)


def test_a_manifest_with_two_path_columns_is_refused(tmp_path, refusal):
    (tmp_path / "m.csv").write_text("path,path\na.wav,b.wav\n")
    assert "more than one column `path`" in refusal(tmp_path / "m.csv")


@pytest.mark.parametrize(
    "path", [1, 1.5, float("nan"), True, pd.Timestamp("2020-01-01"), ["a.wav"]]
)
def test_paths_are_text(tmp_path, path, refusal):
    write_manifest(pd.DataFrame({"path": [path, path]}), tmp_path / "m.parquet")
    assert "the column `path` is not text but " in refusal(tmp_path / "m.parquet")
    value = "NaN" if path != path else json.dumps(path, default=lambda _: 1577836800)  # noqa: PLR0124
    (tmp_path / "m.jsonl").write_text(f'{{"path": {value}}}\n')
    assert "the manifest cannot be read (JSON parse error: Column(/path)" in refusal(
        tmp_path / "m.jsonl"
    )


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
    source = open_source(manifest_of(corpus, "1.wav", path), InputOptions(allow_outside=True))
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
    assert [len(page.recordings) for page in open_source("memory://calls/m.csv").pages()] == [3]


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
        open_source(manifest_of(corpus, path), InputOptions(allow_outside=allow))
    assert "s3cr3t" not in str(caught.value)


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


def test_a_busy_store_leaves_no_size_out(store, listed):
    manifest = upload_manifest(store, 50)
    store.fault = lambda key, attempt: 503 if attempt == 1 and key.endswith("1.wav") else None
    assert set(listed(manifest)["size"]) == {1}
