"""Several inputs of any kind: what was typed becomes URIs, and each recording is listed once."""

import fsspec
import pandas as pd
import pytest
from misbehaving_store import BUCKET
from recordings import write_manifest

from ser_core.errors import CorpusError, RunError, UsageError
from ser_core.sources import inputs as inputs_module
from ser_core.sources.forms import open_source
from ser_core.sources.inputs import expand, shown


@pytest.fixture
def days(tmp_path):
    """Two folders with a recording each, and a name that looks like a pattern."""
    for name in ("monday/1.wav", "tuesday/1.wav", "tuesday/a[1].wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    return tmp_path


def below(folder, table):
    return [path.removeprefix(f"{folder}/") for path in table["path"]]


def test_inputs_of_several_kinds(days, folder, listed):
    manifest = write_manifest(
        pd.DataFrame({"path": ["1.wav"], "speaker": ["007"]}), days / "monday" / "m.csv"
    )
    memory = fsspec.filesystem("memory")
    memory.pipe("/several/x.flac", b"1")
    table = listed(days / "tuesday", manifest, folder / "a.wav", "memory://several").fillna("")
    rows = {row.uri: (row.path, row.speaker) for row in table.itertuples()}
    assert rows == {
        f"{days}/tuesday/1.wav": (f"{days}/tuesday/1.wav", ""),
        f"{days}/tuesday/a[1].wav": (f"{days}/tuesday/a[1].wav", ""),
        f"{days}/monday/1.wav": ("1.wav", "007"),
        f"{folder}/a.wav": (f"{folder}/a.wav", ""),
        "memory:///several/x.flac": ("memory:///several/x.flac", ""),
    }


@pytest.mark.parametrize(
    "names",
    [
        ["monday", "tuesday", "monday/"],
        ["{mon,tues}day"],
        ["*day/*.wav"],
        ["mon*/**", "**/a*.wav", "*/1.wav"],
        [".", "monday", "tuesday/1.wav", "tuesday/*.wav"],
        ["tuesday/a[1].wav", "tuesday/[0-9].wav", "./monday/../monday"],
        ["all.csv", "."],
    ],
)
def test_a_recording_that_several_inputs_lead_to_is_listed_once(names, days, listed, monkeypatch):
    monkeypatch.chdir(days)
    write_manifest(pd.DataFrame({"path": ["monday/1.wav"], "take": ["1"]}), days / "all.csv")
    uris = list(listed(*names)["uri"])
    expected = ["monday/1.wav", "tuesday/1.wav", "tuesday/a[1].wav"]
    assert sorted(uris) == [f"{days}/{name}" for name in expected]


def test_the_order_of_the_forms_is_that_of_the_inputs(days, listed):
    manifest = write_manifest(pd.DataFrame({"path": ["1.wav"]}), days / "monday" / "m.csv")
    first = listed(manifest, days / "monday")["path"]
    assert list(first) == ["1.wav"]  # and so a recording keeps the columns of its manifest
    assert list(listed(days / "monday", manifest)["path"]) == [f"{days}/monday/1.wav"]


def test_one_text_is_one_input(days):
    (page,) = open_source(str(days / "monday" / "1.wav")).pages()
    assert [recording.path for recording in page.recordings] == [f"{days}/monday/1.wav"]


@pytest.mark.parametrize("name", ["[x]{a,b}*.csv", "{0..3}.wav", "what?.wav"])
def test_a_name_that_exists_is_literal(name, tmp_path):
    (tmp_path / name).write_text("path\n1.wav\n")
    assert expand(str(tmp_path / name), {"csv"}) == [str(tmp_path / name)]


def test_a_working_directory_may_look_like_a_pattern(tmp_path, monkeypatch, listed):
    (tmp_path / "[a]*").mkdir()
    (tmp_path / "[a]*" / "1.wav").write_bytes(b"x")
    monkeypatch.chdir(tmp_path / "[a]*")
    for name in ("*.wav", ".", "1.wav", "[0-9].wav", "{1..1}.wav"):
        assert below(tmp_path / "[a]*", listed(name))[:1] == ["1.wav"]


def test_an_object_may_look_like_a_pattern(listed):
    memory = fsspec.filesystem("memory")
    memory.pipe({"/odd/a[1].wav": b"x", "/odd/m[1].csv": b"path\na[1].wav\n"})
    for name in ("a[1].wav", "m[1].csv"):
        assert list(listed(f"memory://odd/{name}")["size"]) == [1]


def test_tables_that_a_pattern_matches_are_opened_in_order(days, listed):
    for name in ("b", "a"):
        write_manifest(pd.DataFrame({"path": [f"{name}.wav"]}), days / f"{name}.csv")
    assert list(listed(days / "*.csv")["path"]) == ["a.wav", "b.wav"]
    with pytest.raises(CorpusError, match=r"\*\.csv: no file matches"):
        open_source([str(days / "monday" / "*.csv")])


@pytest.mark.parametrize("blank", ["", " ", "\t"])
def test_a_blank_input_is_refused(blank):
    with pytest.raises(CorpusError, match="an empty name"):
        open_source(["/data", blank])
    with pytest.raises(CorpusError, match="nothing is named"):
        open_source([])


def test_a_range_that_names_too_much_is_refused(monkeypatch):
    monkeypatch.setattr(inputs_module, "_MAX_FILES", 10)
    assert len(expand("s3://b/{0..9}.tar", ())) == 10
    with pytest.raises(CorpusError, match=r"\{0\.\.999999999\}\.tar: names more than 10 files"):
        expand("s3://b/{0..999999999}.tar", ())


def test_a_pattern_of_folders_within_a_name_is_refused(refusal):
    for name in ("/data/a**.wav", "/data/**.csv"):
        assert "** stands for folders" in refusal(name, UsageError)


@pytest.mark.usefixtures("deadline")
@pytest.mark.parametrize("deadline", [0.5], indirect=True)
def test_the_message_names_the_input_that_failed(store, days):
    store.fault = lambda key, _: 503 if not key else None
    with pytest.raises(RunError, match=f"^--input s3://{BUCKET}/calls: cannot be reached"):
        open_source([str(days / "monday"), f"s3://{BUCKET}/calls", str(days / "tuesday")])
    source = open_source([str(days / "monday"), str(days / "gone"), str(days / "tuesday")])
    with pytest.raises(CorpusError, match=f"^--input {days}/gone: there is no such file"):
        list(source.pages())
    with pytest.raises(CorpusError, match=f"^--input {days}/gone.csv: "):
        open_source([str(days / "monday"), str(days / "gone.csv"), str(days / "tuesday")])


def test_inputs_in_a_message_are_few():
    assert shown([f"{n}.tar" for n in range(5000)]) == "0.tar 1.tar 2.tar and 4,997 more"
