"""Labels made without Ray, by what its tasks run, and checkpoints that are not what they seem."""

import json
import shutil
from contextlib import nullcontext

import numpy as np
import pyarrow as pa
from safetensors.numpy import load_file, save_file

from ser_core.labeling.assembly import assembled_rows
from ser_core.labeling.config import LabelConfig
from ser_core.labeling.output_rows import output_rows
from ser_core.labeling.preparation import prepare
from ser_core.labeling.stages import StageSettings, classify_block, decode_block
from ser_core.models.checkpoint import load_checkpoint
from ser_core.models.classifier import Classifier
from ser_core.sources.decoder import Decoder


def label(*inputs, network=None, report=True, change=lambda rows: rows, **settings):
    """Labels inputs in this process and returns the folder.

    Args:
        inputs: files or folders.
        network: the checkpoint that really computes, whatever the rows say.
        report: whether the run completes.
        change: of the rows, before they are written.
        settings: of `LabelConfig`.
    """
    run = prepare(LabelConfig(input=tuple(map(str, inputs)), **settings))
    labels = run.checkpoint.labels
    network = run.checkpoint if network is None else load_checkpoint(str(network))
    stages = StageSettings(labels, run.source.columns)
    classifier = Classifier(network, run.config.precision)
    with run.store.claimed(), Decoder(run.decoder) as decoder:
        _, work, _ = run.plan(run.pages())
        decoded = pa.concat_tables(
            table for planned in work for table in decode_block(planned, stages, decoder, 4 << 20)
        )
        scored = classify_block(decoded, stages, classifier, lambda: nullcontext(0.0))
        rows = assembled_rows(scored, labels, run.config.rows)
        origin = {"model": run.config.model, "model_digest": run.digest}
        rows = output_rows(rows, stages, run.store.schema, origin, run.store.now())
        run.store.write_part(change(rows))
        if report:
            content = {"config": run.config.model_dump(), "model_digest": run.digest}
            run.store.write_report("run", content | {"revision": None})
    return run.config.output


def changed_checkpoint(source, folder, change=lambda _: {}, **settings):
    """A copy of a checkpoint with other weights, or other settings in ``config.json``."""
    shutil.copytree(source, folder)
    weights = load_file(folder / "model.safetensors")
    save_file(weights | change(weights), folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | settings
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def permuted_head(weights):
    """Each class gets the scores of another one."""
    names = ("classifier.out_proj.weight", "classifier.out_proj.bias")
    return {name: np.roll(weights[name], 1, axis=0) for name in names}


def with_column(rows, name, values):
    """Rows of the output with another column."""
    field = rows.schema.field(name)
    column = pa.array(list(values)).cast(field.type)
    return rows.set_column(rows.schema.get_field_index(name), field, column)
