"""Labels the example corpus with the real command and shows some of the rows."""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
CORPUS = "examples/corpus.csv"
CHECKPOINT = "examples/checkpoint"
OUTPUT = "demo-output"
COLUMNS = ["path", "truth", "label", "score", "status"]
MODEL = "xmj2002/hubert-base-ch-speech-emotion-recognition"


def main(output: str | None) -> int:
    """Runs the demo and returns the exit code of the labelling command."""
    if output is None:  # the demo's own folder is deleted first; any other one is continued
        shutil.rmtree(ROOT / OUTPUT, ignore_errors=True)
    where = str(Path(output).resolve()) if output else OUTPUT
    print(f"{CHECKPOINT} is a small checkpoint, trained on synthetic speech like that of this")
    print("corpus but with other voices. On human speech its labels mean nothing.\n")
    flags = ["--input", CORPUS, "--output", where, "--model", CHECKPOINT]
    print("$ ser-batch label", shlex.join(flags), flush=True)
    command = [sys.executable, "-m", "jobs.ser_batch", "label", *flags]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if code == 0:
        show(pd.read_parquet(ROOT / where), where)
        print(next_steps())
    return code


def show(rows: pd.DataFrame, where: str) -> None:
    """Prints one row of each class and every row that failed."""
    labelled = rows[rows.status == "ok"].sort_values("path")
    failed = rows[rows.status != "ok"]
    shown = pd.concat([labelled.groupby("truth", observed=True).tail(1), failed])
    accuracy = (labelled.label.astype(str) == labelled.truth).mean()
    print(f"\n{accuracy:.0%} of {len(labelled)} labels agree with the truth in {CORPUS}.")
    print(f"\n>>> pandas.read_parquet({where!r})[{COLUMNS}]   # {len(shown)} of {len(rows)} rows")
    with pd.option_context("display.unicode.east_asian_width", True):
        print(shown[COLUMNS].to_string(index=False, na_rep="-", float_format="%.3f"))
    for row in failed.itertuples():
        print(f"\n{row.path}: {row.error}")


def next_steps() -> str:
    """What to type after the demo, in the shell from which `make demo` was run."""
    activate = f"  source {shlex.quote(os.path.relpath(sys.prefix, ROOT))}/bin/activate\n"
    return f"""
To label your own recordings with the published model, {MODEL}:

{activate if sys.prefix != sys.base_prefix else ""}\
  ser-batch label --input s3://bucket/calls --output s3://bucket/labels

--input and --output also take folders on this machine. `ser-batch label --help` lists all flags."""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "output", nargs="?", help=f"folder for the labels; by default {OUTPUT}, deleted first"
    )
    sys.exit(main(parser.parse_args().output))
