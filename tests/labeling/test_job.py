"""What a run does beside labelling, without Ray: plan, checks, what it removes, and its report."""

import itertools
import json
import os
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from ser_core.errors import CheckError, CheckpointError, OutputError, RunError, UsageError
from ser_core.labeling import label_store, parts, preparation
from ser_core.labeling.config import LabelConfig
from ser_core.labeling.coverage import coverage
from ser_core.labeling.job import finish
from ser_core.labeling.label_store import LabelStore
from ser_core.labeling.preparation import Run
from ser_core.labeling.progress import RunStats
from ser_core.labeling.rules import is_useful
from ser_core.labeling.run_report import reported
from ser_core.sources.identity_hashes import hashes
from ser_core.sources.interface import Page
from ser_core.sources.recording import Recording
from ser_core.storage.folder import Folder

LABELS = ("angry", "sad")
NONE = pa.schema([])
ROWS_PER_WRITE = 2
EXAMPLES = int(os.environ.get("SER_EXAMPLES") or 30)  # of histories; 400 take 90 s


class Killed(BaseException):
    """What a killed process looks like from within: nothing after it is executed."""


class Clock:
    """A clock that tests set, also backwards."""

    time = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self, _=None):
        self.time += timedelta(seconds=1)
        return self.time


class World:
    """A corpus, an output, and runs of the job that end in any way.

    Attributes:
        contents: the version and the status of each recording, by name; of those listed.
        unreachable: names that cannot be read now.
        unseen: places that a listing cannot look into.
        operations: how many storage operations succeed before the process is killed.
        last_report: the name of the report that was written last.
    """

    def __init__(self, output, segments=False):
        self.output = output
        self.segments = segments  # whether recordings have several rows
        self.contents = {}
        self.unreachable = set()
        self.unseen = ()
        self.clock = Clock()
        self.operations = None
        self.last_report = None

    def recording(self, name):
        if name in self.unreachable:
            return Recording(f"/c/{name}")
        version, _ = self.contents[name]
        return Recording(f"/c/{name}", 1, f"v{version}")

    def run(self, model="m1", stop_after=None, **flags):
        """One run; as `label_corpus`, with rows from `contents` instead of Ray's."""
        config = LabelConfig(input="/c", output=self.output, **flags)
        checkpoint = SimpleNamespace(digest=model, name=model, labels=LABELS, revision=None)
        store = LabelStore(self.output, LABELS, NONE)
        run = Run(config, self.clock.now(), checkpoint, SimpleNamespace(columns=NONE), store)
        stats = RunStats()
        with store.claimed(), reported(run, stats) as report:
            pages = [Page([self.recording(name) for name in self.contents])]
            pages += [Page([], unseen=self.unseen)] if self.unseen else []
            plan, work, _ = run.plan(pages)
            stats.listing(plan, ended=True)
            since, dropped = store.now(), []
            self._label(work, store, model, stats, stop_after, dropped)
            report.covered = coverage(store, plan, since, dropped, run.config.prune)
            assert not report.covered.missing
            finish(run, report.covered, stats)
        return plan

    def _label(self, tables, store, model, stats, stop_after, dropped):
        for number, planned in enumerate(
            table.slice(at, ROWS_PER_WRITE)
            for table in tables
            for at in range(0, len(table), ROWS_PER_WRITE)
        ):
            if number == stop_after:
                raise RunError("the pipeline failed")
            names = [uri.removeprefix("/c/") for uri in planned["uri"].to_pylist()]
            status = [
                "unavailable" if n in self.unreachable else self.contents[n][1] for n in names
            ]
            count = len(names)
            rows = [
                1 + self.contents[n][0] % 3 if self.segments and s == "ok" else 1
                for n, s in zip(names, status, strict=True)
            ]
            columns = {
                "path": planned["uri"], "uri": planned["uri"], "file_id": planned["file_id"],
                "status": pa.array(status), "model": pa.array([model] * count),
                "label": pa.array(["sad" if s == "ok" else None for s in status], pa.string()),
                "model_digest": pa.array([model] * count),
                "labeled_at": pa.array([store.now()] * count),
            }  # fmt: skip
            stats.status.update(status)
            start = pa.array([6.0 * n for each in rows for n in range(each)])
            useful = is_useful(pa.chunked_array([status]), planned["_has_final"].to_numpy())
            dropped.append(hashes(planned["uri"])[~useful])
            table = pa.table(columns).take(np.repeat(np.arange(count), rows))
            table = table.append_column("start", start).filter(np.repeat(useful, rows))
            if table.num_rows:
                store.write_part(table)

    def rows(self):
        names = Folder(self.output).names()
        if not any(name.endswith(".parquet") for name in names):
            return pd.DataFrame({"uri": [], "status": [], "file_id": [], "model_digest": []})
        return pd.concat(
            pd.read_parquet(f"{self.output}/{n}") for n in names if n.endswith(".parquet")
        ).reset_index(drop=True)

    def current(self):
        """The current row of each recording, by the rules as a reader would apply them."""
        rows = self.rows()
        rows["final"] = ~rows["status"].isin(["not_found", "permission_denied", "unavailable"])
        by = ["final", "labeled_at"] if len(rows) else ["final"]
        return rows.sort_values(by).groupby("uri").last()

    def report(self):
        """The last one written, whatever the clock said."""
        return json.loads(Path(self.output, self.last_report).read_text())


@contextmanager
def no_claim(folder, name):
    yield SimpleNamespace(check=lambda: None, folder=folder, name=name)


def install(world, patch):
    """Gives a world its clock and its killer."""
    patch.setattr(label_store, "Claim", no_claim)
    patch.setattr(label_store, "datetime", world.clock)
    patch.setattr(Folder, "probe", lambda _: None)
    patch.setattr(parts, "ROWS_PER_PART", 4)
    for name in ("write", "remove"):
        original = getattr(Folder, name)

        def counted(folder, *args, original=original):
            if world.operations == 0:
                raise Killed
            original(folder, *args)
            if original.__name__ == "write" and args[0].startswith("__runs/2"):
                world.last_report = args[0]
            if world.operations is not None:
                world.operations -= 1

        patch.setattr(Folder, name, counted)


@pytest.fixture
def world(tmp_path, monkeypatch):
    world = World(str(tmp_path / "labels"))
    install(world, monkeypatch)
    return world


def listed(names, status="ok", version=1):
    return dict.fromkeys(names, (version, status))


# ---- checks come before anything is superseded ---------------------------------------------------


def test_too_many_failures_supersede_nothing_and_rerunning_changes_nothing(world):
    world.contents = listed("abcd")
    world.run()
    before = world.rows()
    world.contents["a"] = (2, "decode_error")
    for _ in range(2):
        with pytest.raises(CheckError, match=r"1 of 4 .* no earlier row was removed"):
            world.run(max_failed_fraction=0.2)
        rows = world.rows()
        assert rows["file_id"].isin(before["file_id"]).sum() == 4
        assert len(rows) == 5
    plan = world.run(max_failed_fraction=0.25)
    assert (plan.to_do, len(world.rows())) == (0, 4)
    assert world.current().loc["/c/a", "status"] == "decode_error"
    assert (world.report()["failed"], world.report()["superseded_rows"]) == (1, 1)


def test_a_file_that_changed_back_after_a_failed_check_is_labelled_again(world):
    world.contents = listed("ab")
    world.run()
    world.contents["a"] = (2, "decode_error")
    with pytest.raises(CheckError):
        world.run(max_failed_fraction=0)
    world.contents["a"] = (1, "ok")
    assert world.run(max_failed_fraction=0).to_do == 1
    assert set(world.rows()["status"]) == {"ok"}


def test_returning_to_the_first_model_leaves_its_rows(world):
    world.contents = listed("abcd")
    world.run(model="m1")
    with pytest.raises(RunError, match="pipeline"):
        world.run(model="m2", stop_after=1)
    assert world.run(model="m1").to_do == 2
    assert list(world.rows()["model_digest"].astype(str)) == ["m1"] * 4


def test_failed_are_recordings_without_a_label_not_those_that_were_not_reached(world):
    world.contents = listed("abcd")
    world.run()
    world.contents |= listed("ef")
    world.unreachable = set("abe")
    world.run(max_failed_fraction=0.17)
    assert world.report()["failed"] == 1  # e, which never had a label
    assert world.report()["unreachable"] == 3
    assert world.current()["status"].value_counts().to_dict() == {"ok": 5, "unavailable": 1}
    with pytest.raises(CheckError, match=r"1 of 6 recordings have no label"):
        world.run(max_failed_fraction=0.16)


def test_when_nothing_can_be_reached_nothing_changes(world):
    world.contents = listed("abcd")
    world.run()
    files, rows = Folder(world.output).names(), world.rows()
    world.unreachable = set("abcd")
    with pytest.raises(RunError, match="0 of 4 recordings could be reached"):
        world.run(prune=True)
    assert Folder(world.output).names() == files
    pd.testing.assert_frame_equal(world.rows(), rows)


# ---- rows of recordings that are no longer listed ------------------------------------------------


def test_unlisted_rows_stay_and_are_counted_until_they_are_pruned(world, capsys):
    world.contents = listed("abcd")
    world.run()
    assert world.report()["unlisted_rows"] == 0
    del world.contents["a"], world.contents["b"]
    world.run()
    assert len(world.rows()) == 4
    assert (world.report()["unlisted_rows"], world.report()["pruned_rows"]) == (2, 0)
    assert (
        "2 recordings with rows are no longer listed; the rows are kept" in capsys.readouterr().err
    )
    world.run(prune=True)
    assert set(world.current().index) == {"/c/c", "/c/d"}
    assert (world.report()["unlisted_rows"], world.report()["pruned_rows"]) == (0, 2)
    assert world.report()["output"]["rows"] == 2
    assert "--prune has removed their rows" in capsys.readouterr().err


def test_what_may_only_be_out_of_reach_is_not_pruned(world, capsys):
    world.contents = dict.fromkeys(("a", "nas/b"), (1, "ok"))
    world.run()
    del world.contents["nas/b"]
    world.unseen = ("/c/nas",)
    world.run()
    assert "warning: 1 place cannot be listed: /c/nas" in capsys.readouterr().err
    with pytest.raises(RunError, match="--prune: recordings may be out of reach in /c/nas"):
        world.run(prune=True)
    assert set(world.rows()["uri"]) == {"/c/a", "/c/nas/b"}
    world.unseen = ()
    world.run(prune=True)
    assert set(world.rows()["uri"]) == {"/c/a"}


def test_a_place_that_cannot_be_listed_fails_the_check_and_is_in_the_report(world):
    world.contents = listed("abcd")
    world.unseen = ("/c/shard.tar: not found",)
    world.run()
    assert world.report()["unseen"] == ["/c/shard.tar: not found"]
    with pytest.raises(CheckError, match="0 of 4 recordings have no label and 1 place cannot"):
        world.run(max_failed_fraction=0)
    world.run(max_failed_fraction=0.25)


def test_a_failed_check_prunes_nothing(world):
    world.contents = listed("abcd")
    world.run()
    world.contents = {"a": (2, "crashed")}
    with pytest.raises(CheckError):
        world.run(prune=True, max_failed_fraction=0.5)
    assert set(world.current().index) == {f"/c/{name}" for name in "abcd"}


# ---- the checkpoint ------------------------------------------------------------------------------


def test_messages_of_the_checkpoint_name_the_flag(tmp_path, monkeypatch):
    config = LabelConfig(input=str(tmp_path), output=str(tmp_path / "labels"), model="./nowhere")
    with pytest.raises(CheckpointError, match=r"^--model \./nowhere: no such folder"):
        preparation.prepare(config)

    def missing():
        raise UsageError("silero-vad is required")

    monkeypatch.setattr(preparation, "check_installed", missing)
    with pytest.raises(UsageError, match=r"^--segments speech: silero-vad is"):
        preparation.prepare(config.model_copy(update={"segments": "speech"}))


# ---- the report of a run -------------------------------------------------------------------------

UNKNOWN = ("failed", "superseded_rows", "unlisted_rows", "pruned_rows", "output")


def outcome(world):
    return tuple(world.report()[key] for key in ("outcome", "exit_code", "error"))


def test_a_run_that_labels_and_one_with_nothing_to_do_state_the_corpus(world):
    world.contents = listed("abc") | {"d": (1, "decode_error")}
    world.run()
    first = world.report()
    assert outcome(world) == ("complete", 0, None)
    world.run()
    assert outcome(world) == ("nothing_to_do", 0, None)
    second = world.report()
    assert (first["by_status"], second["by_status"]) == ({"ok": 3, "decode_error": 1}, {})
    assert first["output"] == second["output"]
    assert second["output"]["by_status"] == {"ok": 3, "decode_error": 1}
    assert (second["output"]["recordings"], second["output"]["by_label"]) == (4, {"sad": 3})
    assert first["started_at"] < second["started_at"]


def test_a_failed_check_leaves_a_report_that_counts_only_current_rows(world):
    world.contents = listed("abcd")
    world.run()
    world.contents["a"] = (2, "decode_error")
    for to_do in (1, 0):  # the night after ends with 3, too, though it has nothing to do
        with pytest.raises(CheckError) as caught:
            world.run(max_failed_fraction=0.2)
        assert outcome(world) == ("check_failed", 3, str(caught.value))
        report = world.report()
        assert report["listed"] - report["done_before"] == to_do
        assert (report["failed"], report["superseded_rows"]) == (1, 0)  # none is removed
        assert len(world.rows()) == 5
        assert report["output"]["by_status"] == {"ok": 3, "decode_error": 1}


def test_a_failed_check_has_pruned_nothing(world):
    world.contents = listed("abcd")
    world.run()
    world.contents = {"a": (2, "crashed")}
    with pytest.raises(CheckError):
        world.run(prune=True, max_failed_fraction=0.5)
    assert (world.report()["unlisted_rows"], world.report()["pruned_rows"]) == (3, 0)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (RunError("the storage\nis away: s3://me:secret@b"), 1, "the storage is away: s3://***@b"),
        (OutputError("--output /x: refused"), 2, "--output /x: refused"),
        (KeyboardInterrupt(), 1, "interrupted"),
        (ZeroDivisionError("a bug"), 1, "ZeroDivisionError('a bug')"),
    ],
)
def test_a_run_that_does_not_finish_leaves_a_report_without_totals(
    world, monkeypatch, error, code, message
):
    def fail(*_, **__):
        raise error

    world.contents = listed("abcd")
    monkeypatch.setattr(world, "_label", fail)
    with pytest.raises(type(error)):
        world.run()
    assert outcome(world) == ("incomplete", code, message)
    assert world.report()["listed"] == 4
    assert [world.report()[key] for key in UNKNOWN] == [None] * len(UNKNOWN)


def test_a_report_that_cannot_be_written_does_not_hide_why_the_run_ended(world, monkeypatch):
    def fail(*_):
        raise RunError("the disk is full")

    world.contents = listed("abcd")
    monkeypatch.setattr(LabelStore, "write_report", fail)
    with pytest.raises(RunError, match="the pipeline failed"):
        world.run(stop_after=0)
    with pytest.raises(RunError, match="the disk is full"):
        world.run()


# ---- folders -------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["s3://b/in", "s3://b/in/", "s3a://b/./in"])
def test_an_output_equal_to_the_input_is_refused(output):
    with pytest.raises(OutputError, match="it is --input"):
        preparation._check_folders(LabelConfig(input="s3://b/in", output=output))


def test_a_link_to_the_input_is_refused_as_output(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(OutputError, match="it is --input"):
        preparation._check_folders(LabelConfig(input=str(tmp_path), output=str(tmp_path / "link")))


@pytest.mark.parametrize(
    ("source", "output", "warned"),
    [
        ("/data/in", "/data/in/labels", "--output /data/in/labels lies in /data/in;"),
        ("/data/out/calls.csv", "/data/out", "--input /data/out/calls.csv lies in /data/out;"),
        ("s3://b", "s3://b/labels", "--output s3://b/labels lies in s3://b;"),
        ("/data/in", "/data/in-labels", ""),
        ("/data/in", "s3://b/data/in/labels", ""),
    ],
)
def test_an_output_within_the_input_is_warned_of(source, output, warned, capsys):
    preparation._check_folders(LabelConfig(input=source, output=output))
    printed = capsys.readouterr().err
    assert warned in printed
    assert printed.count("\n") == bool(warned)


# ---- any history ---------------------------------------------------------------------------------

NAMES = "abcdefg"
STATUSES = st.sampled_from(["ok", "ok", "ok", "decode_error"])
CHANGES = st.one_of(
    st.tuples(st.just("change"), st.sampled_from(NAMES), st.integers(1, 3), STATUSES),
    st.tuples(st.just("remove"), st.sampled_from(NAMES)),
    st.tuples(st.just("away"), st.sets(st.sampled_from(NAMES), max_size=3)),
    st.tuples(st.just("clock"), st.integers(-100, 100)),
)
RUNS = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["m1", "m1", "m2"]),
        "stop_after": st.sampled_from([None, None, None, 0, 1, 2]),
        "operations": st.one_of(st.none(), st.integers(0, 8), st.integers(0, 8)),
        "max_failed_fraction": st.sampled_from([0.0, 0.3, 1.0, 1.0, 1.0]),
        "prune": st.booleans(),
    }
)
HISTORIES = st.lists(st.tuples(st.lists(CHANGES, max_size=4), RUNS), max_size=6)


def apply(world, change):
    kind, *values = change
    if kind == "change":
        name, version, status = values
        # The same version is the same content, so that files can change back.
        world.contents[name] = (version + 10 * (status == "ok"), status)
    elif kind == "remove" and len(world.contents) > 1:
        world.contents.pop(values[0], None)
    elif kind == "away":
        world.unreachable = values[0]
    elif kind == "clock":
        world.clock.time += timedelta(hours=values[0])


def check_no_label_was_lost(world, before, run):
    """Every label is still there unless its file or the model changed, or it may be pruned."""
    after = world.current()
    for uri, row in before[before["status"] == "ok"].iterrows():
        name = uri.removeprefix("/c/")
        if name not in world.contents:
            assert run["prune"] or uri in after.index
        elif uri not in after.index or after.loc[uri, "labeled_at"] != row["labeled_at"]:
            recording = world.recording(name)
            assert name not in world.unreachable
            assert (recording.file_id, run["model"]) != (row["file_id"], row["model_digest"])
            assert after.loc[uri, "file_id"] == recording.file_id


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, phases=[Phase.generate])
@given(history=HISTORIES, last=RUNS, segments=st.booleans())
def test_whatever_happened_the_next_complete_run_leaves_the_rows_of_each(
    tmp_path_factory, history, last, segments
):
    world = World(str(tmp_path_factory.mktemp("history") / "labels"), segments)
    world.contents = listed(NAMES[:4], version=11)
    with pytest.MonkeyPatch.context() as patch:
        install(world, patch)
        world.run()
        for changes, run in history:
            for change in changes:
                apply(world, change)
            before, flags = world.current(), dict(run)
            world.operations = flags.pop("operations")
            with suppress(Killed, RunError, CheckError):
                world.run(**flags)
            world.operations = None
            check_no_label_was_lost(world, before, run)
        check_the_last_run(world, last)


@pytest.mark.parametrize("segments", [False, True])
@pytest.mark.parametrize("prune", [False, True])
def test_a_run_killed_at_any_moment_is_completed_by_the_next_one(
    tmp_path, monkeypatch, prune, segments
):
    """Labelling, superseding, merging, pruning and the report, cut off after each operation."""
    for operations in itertools.count():
        world = World(str(tmp_path / str(operations)), segments)
        world.contents = listed(NAMES, version=1)
        with monkeypatch.context() as patch:
            install(world, patch)
            with suppress(RunError):
                world.run(stop_after=3)
            world.run()
            world.contents |= listed("ac", version=2) | {"d": (2, "crashed")}
            del world.contents["g"]
            before, run = world.current(), {"prune": prune, "model": "m1"}
            world.operations = operations
            killed = False
            try:
                world.run(**run)
            except Killed:
                killed = True
            world.operations = None
            check_no_label_was_lost(world, before, run)
            if len(list(Path(world.output, "__runs").glob("2*.json"))) > 2:  # the run's report
                assert not world.rows().duplicated(["uri", "start"]).any()
            check_the_last_run(world, run)
        if not killed:
            break
    assert operations > 5


def check_the_last_run(world, last):
    """Everything can be reached, and nothing ends the run."""
    world.unreachable = set()
    before = world.current()
    plan = world.run(last["model"], prune=last["prune"])
    rows = world.rows()
    assert not rows.duplicated(["uri", "start"]).any()
    assert not rows.groupby("uri")[["file_id", "labeled_at"]].nunique().gt(1).any(axis=None)
    expected = {f"/c/{name}": status for name, (_, status) in world.contents.items()}
    unlisted = set(before.index) - expected.keys()
    assert set(rows["uri"]) == expected.keys() | (set() if last["prune"] else unlisted)
    num_rows = rows.groupby("uri").size()
    for name, (version, status) in world.contents.items():
        several = world.segments and status == "ok"
        assert num_rows[f"/c/{name}"] == (1 + version % 3 if several else 1)
    rows = rows.drop_duplicates("uri").set_index("uri").loc[list(expected)]
    assert rows["status"].astype(str).to_dict() == expected
    assert list(rows["file_id"]) == [world.recording(name).file_id for name in world.contents]
    assert set(rows["model_digest"]) == {last["model"]}
    check_no_label_was_lost(world, before, last)
    report = world.report()
    assert report["listed"] == plan.listed == len(expected)
    assert report["failed"] == sum(status != "ok" for status in expected.values())
    assert report["unlisted_rows"] + report["pruned_rows"] == len(unlisted)
    assert report["output"]["rows"] == num_rows.sum()
    assert world.run(last["model"]).to_do == 0
