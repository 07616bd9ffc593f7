"""The verification job: rows of a folder, labelled once more by the model card's own script."""

from ser_core.console import counted, phase, progress
from ser_core.errors import (
    CheckError,
    CheckpointError,
    RunError,
    SerError,
    names_flag,
    one_line,
)
from ser_core.labeling.current_rows import open_labels, report_folder
from ser_core.models.card import Card, exact_card
from ser_core.models.hub import fetch
from ser_core.reporting.libraries import require_libraries
from ser_core.verification.comparison import Compared
from ser_core.verification.config import VerifyConfig
from ser_core.verification.origin import find_origin
from ser_core.verification.report import Verification, print_verification, write_verification
from ser_core.verification.rows import Skipped, label_again
from ser_core.verification.sample import draw


def verify_labels(config: VerifyConfig) -> Verification:
    """Compares a sample of labels with the card's script, and prints what differs.

    Raises:
        UsageError: the command cannot run as written.
        RunError: storage cannot be reached, or none of the rows that were drawn can be compared.
        CheckError: another checkpoint made the labels, or they differ by more than they may.
    """
    require_libraries("verify")
    output = None if config.output is None else report_folder(config.output, [config.labels])
    phase("reading the labels")
    labels = open_labels(config.labels)
    origin = find_origin(labels, config.model, config.revision)
    card = _card(origin.model, origin.revision)
    if card.labels != labels.classes:
        theirs, ours = ", ".join(labels.classes), ", ".join(card.labels)
        reason = f"the labels have the classes {theirs}, and the model has {ours}"
        raise CheckError(f"--model {origin.model}: {reason}")
    phase("labelling with the model card's script")
    rows = draw(labels, origin.cuttings, config.sample, config.seed)
    outcomes = []
    for outcome in label_again(rows, origin.cuttings, card):
        outcomes.append(outcome)
        done = f"{len(outcomes):,} of {counted(len(rows), 'row')} compared"
        progress(done, len(outcomes), len(rows))
    found = Verification(
        labels=labels.folder.uri,
        origin=origin,
        device=card.device,
        seed=config.seed,
        tolerance=config.tolerance,
        compared=[outcome for outcome in outcomes if isinstance(outcome, Compared)],
        skipped=[outcome for outcome in outcomes if isinstance(outcome, Skipped)],
    )
    print_verification(found)
    if output is not None:
        write_verification(found, output)
    _check(found)
    return found


def _card(model: str, revision: str | None) -> Card:
    with names_flag("--model"), fetch(model, revision) as folder:
        try:
            return exact_card(folder)
        except SerError:
            raise
        except Exception as error:  # transformers raises what it does
            reason = f"transformers cannot load it ({type(error).__name__}: {one_line(error)})"
            raise CheckpointError(f"{model}: {reason}") from None


def _check(found: Verification) -> None:
    if not found.compared:
        first = found.skipped[0]
        reason = f"none of the {counted(len(found.skipped), 'row')} drawn can be compared"
        raise RunError(f"--labels {found.labels}: {reason} ({first.path}: {first.reason})")
    if beyond := found.beyond:
        largest = max(row.difference for row in beyond)
        raise CheckError(
            f"{len(beyond):,} of {len(found.compared):,} labels differ from the model card's script"
            f" by more than the tolerance, the largest score difference is {largest:.2g}"
        )
