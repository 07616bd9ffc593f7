"""The plan as a stream: listing in the cluster, while the first recordings are labelled."""

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
import ray
from recordings import speech_like, write_audio

from ser_core.errors import CorpusError, RunError, UsageError
from ser_core.labeling import job, listing, pipeline, preparation, rounds
from ser_core.labeling.config import LabelConfig
from ser_core.labeling.job import label_corpus
from ser_core.sources.interface import Page
from ser_core.sources.recording import Recording
from ser_core.storage.listing import stat_file

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import it


@pytest.fixture(scope="module", autouse=True)
def ray_session():
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def corpus(tmp_path):
    for number in range(12):
        folder = tmp_path / "corpus" / f"day-{number % 3}"
        write_audio(folder / f"{number:02}.wav", speech_like(0.5 + number % 3, seed=number))
    return tmp_path / "corpus"


@pytest.fixture
def label(small_checkpoint, tmp_path, monkeypatch):
    """Labels with a listing that counts as long."""
    monkeypatch.setattr(preparation, "PAGE_ROWS", 0)

    def run(source, **settings):
        settings = {"precision": "fp32", "model": str(small_checkpoint)} | settings
        config = LabelConfig(input=str(source), output=str(tmp_path / "labels"), **settings)
        return label_corpus(config)

    run.output = tmp_path / "labels"
    return run


def table(label):
    return pd.read_parquet(label.output).set_index("path").sort_index()


def wait_until(condition):
    deadline = time.monotonic() + 120
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("nothing was labelled while listing went on")
        time.sleep(0.05)


@dataclass(frozen=True)
class SlowSource:
    """Lists recordings in two pages; before the second one, waits until a file matches."""

    uris: tuple[str, ...]
    folder: str
    awaited: str
    columns: pa.Schema = pa.schema([])  # noqa: RUF009

    def pages(self):
        entries = [Recording(*stat_file(uri)) for uri in self.uris]
        yield Page(entries[:3])
        wait_until(lambda: list(Path(self.folder).glob(self.awaited)))
        yield Page(entries[3:])

    def split(self, _):
        return [self]


def test_the_first_recording_is_labelled_while_listing_goes_on(label, corpus, monkeypatch):
    uris = tuple(sorted(map(str, corpus.rglob("*.wav"))))
    source = SlowSource(uris, str(label.output), "part-*.parquet")
    prepare = job.prepare
    monkeypatch.setattr(job, "prepare", lambda config: replace(prepare(config), source=source))
    monkeypatch.setattr(preparation.Run, "short_listing", lambda _: None)
    plan = label(corpus, part_seconds=0.1)
    assert (plan.listed, plan.done, plan.to_do) == (12, 0, 12)
    assert list(table(label).index) == list(uris)
    assert set(table(label)["status"]) == {"ok"}


def test_a_long_listing_gives_the_rows_of_a_short_one(label, corpus, monkeypatch, small_checkpoint):
    (corpus / "bad.wav").write_bytes(b"no audio")
    plan = label(corpus)
    assert (plan.listed, plan.to_do) == (13, 13)
    long = table(label)
    assert label(corpus).to_do == 0
    (corpus / "day-0" / "00.wav").unlink()
    write_audio(corpus / "day-0" / "new.wav", speech_like(1.0))
    plan = label(corpus, prune=True)
    assert (plan.listed, plan.done, plan.to_do) == (13, 12, 1)
    assert len(table(label)) == 13
    monkeypatch.undo()
    label.output = label.output.with_name("short")
    config = LabelConfig(
        input=str(corpus),
        output=str(label.output),
        model=str(small_checkpoint),
        precision="fp32",
    )  # fmt: skip
    label_corpus(config)
    short, columns = table(label), ["file_id", "status", "duration", "label"]
    same = [path for path in short.index if not path.endswith("new.wav")]
    pd.testing.assert_frame_equal(
        short.loc[same, columns].astype(object), long.loc[same, columns].astype(object)
    )


def test_what_a_process_takes_with_it_is_found_by_looking_again(label, corpus, monkeypatch, capsys):
    label_planned, listed, calls, rows = rounds.label_planned, rounds.listed, [], []

    def lossy(planned, settings):
        """The first round loses what each of its blocks begins with."""
        calls.append(settings.resources.rows_per_block)
        for labeled in label_planned(planned, settings):
            yield labeled.slice(1 if len(calls) == 1 else 0)

    def watched(count, listing):
        rows.append(listing.rows)
        return listed(count, listing)

    monkeypatch.setattr(rounds, "label_planned", lossy)
    monkeypatch.setattr(rounds, "listed", watched)
    label(corpus)
    assert len(calls) == 2
    assert rows[-1] < calls[0] or rows[-1] == 1
    assert len(table(label)) == 12
    assert "recordings were lost with a process; retrying in blocks" in capsys.readouterr().err


def test_what_is_always_lost_is_unavailable(label, corpus, monkeypatch):
    label_planned = rounds.label_planned

    def lossy(planned, settings):
        for labeled in label_planned(planned, settings):
            keep = [not uri.endswith("05.wav") for uri in labeled["uri"].to_pylist()]
            yield labeled.filter(pa.array(keep))

    monkeypatch.setattr(rounds, "label_planned", lossy)
    label(corpus)
    status = table(label)["status"].astype(str)
    assert status.drop(str(corpus / "day-2" / "05.wav")).unique().tolist() == ["ok"]
    assert status[str(corpus / "day-2" / "05.wav")] == "unavailable"


def test_classifiers_start_for_work_that_was_seen(label, corpus, monkeypatch):
    label_planned, held, listed, seen = rounds.label_planned, rounds.held, rounds.listed, []

    def watched(planned, settings):
        seen.append(settings.resources)
        return label_planned(planned, settings)

    label(corpus)
    monkeypatch.setattr(rounds, "PAGE_ROWS", 3)  # is little to do
    monkeypatch.setattr(listing, "_LOOK_SECONDS", 600)  # however busy the machine is
    monkeypatch.setattr(rounds, "label_planned", watched)
    monkeypatch.setattr(rounds, "held", lambda blocks: seen.append(len(blocks)) or held(blocks))
    monkeypatch.setattr(rounds, "listed", lambda *each: seen.append("listed") or listed(*each))
    assert label(corpus).to_do == 0
    assert not seen
    for name in ("a", "b"):
        write_audio(corpus / f"{name}.wav", speech_like(1.0))
    plan = label(corpus)
    assert (plan.listed, plan.done, plan.to_do) == (14, 12, 2)
    blocks, resources = seen
    assert blocks == 2  # so that two processes can decode
    assert resources.classifiers == resources.most_classifiers == 1
    seen.clear()
    for number in range(5):
        write_audio(corpus / f"new-{number}.wav", speech_like(1.0))
    plan = label(corpus)
    assert (plan.listed, plan.done, plan.to_do) == (19, 14, 5)
    form, resources = seen
    assert form == "listed"  # while the first of it are labelled
    assert resources.most_classifiers > 1_000_000
    assert len(table(label)) == 19


def test_where_no_process_starts_the_run_ends(label, corpus, monkeypatch):
    monkeypatch.setattr(pipeline, "_START_SECONDS", 0)
    with pytest.raises(RunError, match="no worker process started within 0 s; Ray's own logs"):
        label(corpus)
    monkeypatch.undo()
    assert label(corpus).to_do == 12


@dataclass(frozen=True)
class FailingSource:
    """A listing that fails after its first page."""

    uris: tuple[str, ...]
    error: Exception
    columns: pa.Schema = pa.schema([])  # noqa: RUF009

    def pages(self):
        yield Page([Recording(*stat_file(uri)) for uri in self.uris])
        raise self.error

    def split(self, _):
        return [self]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RunError("--input s3://b: does not answer"), "--input s3://b: does not answer"),
        (CorpusError("--input a.csv: line 9"), "--input a.csv: line 9"),
        (KeyError("x"), r"a bug, not a bad recording, stopped the run \(KeyError"),
    ],
)
def test_a_listing_that_fails_stops_the_run_and_keeps_its_rows(
    label, corpus, monkeypatch, error, message
):
    uris = tuple(sorted(map(str, corpus.rglob("*.wav"))))
    source = FailingSource(uris, error)
    prepare = job.prepare
    with monkeypatch.context() as patch:
        patch.setattr(job, "prepare", lambda config: replace(prepare(config), source=source))
        patch.setattr(preparation.Run, "short_listing", lambda _: None)
        kind = UsageError if isinstance(error, UsageError) else RunError
        with pytest.raises(kind, match=message):
            label(corpus, part_seconds=0.1)
    label(corpus)
    assert len(table(label)) == 12


def test_decoders_stop_where_enough_waits_for_each_classifier(label, corpus, monkeypatch):
    runs, labeled = [], pipeline._labeled

    def noted(planned, settings):
        dataset = labeled(planned, settings)
        runs.append((dataset.context, settings.resources))  # later settings have no effect
        return dataset

    monkeypatch.setattr(pipeline, "_labeled", noted)
    label(corpus)
    ((context, resources),) = runs
    limit = context.override_object_store_memory_limit_fraction * resources.object_store_bytes
    assert limit == pytest.approx(4 * resources.classifiers * pipeline._BYTES_PER_TABLE)
