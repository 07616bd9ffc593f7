"""Labels the example corpus with the real command, and shows a few of the rows."""

import argparse
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
    """Runs the demo; returns the labelling command's exit code."""
    if output is None:  # the demo's own folder: start afresh; any other one is continued
        shutil.rmtree(ROOT / OUTPUT, ignore_errors=True)
    where = str(Path(output).resolve()) if output else OUTPUT
    print(f"{CHECKPOINT}: a small checkpoint that jobs.train made. It knows the synthetic prosody")
    print("of this corpus and nothing else; the voices here are none that it was trained on.\n")
    command = ["-m", "jobs.label", "--input", CORPUS, "--output", where, "--model", CHECKPOINT]
    print("$ python", shlex.join(command), flush=True)
    code = subprocess.run([sys.executable, *command], cwd=ROOT, check=False).returncode
    if code == 0:
        show(pd.read_parquet(ROOT / where), where)
    return code


def show(rows: pd.DataFrame, where: str) -> None:
    """Prints a row of each class and what failed, then what to type next."""
    heard = rows[rows.status == "ok"].sort_values("path")
    failed = rows[rows.status != "ok"]
    some = pd.concat([heard.groupby("truth", observed=True).tail(1), failed])
    right = (heard.label.astype(str) == heard.truth).mean()
    print(f"\n{right:.0%} of {len(heard)} recordings have the label of their truth.")
    print(f"\n>>> pandas.read_parquet({where!r})[{COLUMNS}]   # {len(some)} of {len(rows)} rows")
    with pd.option_context("display.unicode.east_asian_width", True):
        print(some[COLUMNS].to_string(index=False, na_rep="-", float_format="%.3f"))
    for row in failed.itertuples():
        print(f"\n{row.path}: {row.error}")
    print("\nThe same with the trained model and a bucket; --model also takes a folder:")
    print("$ python -m jobs.label --input s3://bucket/calls --output s3://bucket/labels \\")
    print(f"    --model {MODEL}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", nargs="?", help=f"folder for the labels; {OUTPUT} made afresh")
    sys.exit(main(parser.parse_args().output))
