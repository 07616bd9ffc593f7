"""Checks many mutants: ``python -m tests.fuzz --count 50000``; exits with 1 if one is found."""

import argparse
import sys
import time

from benchmarks.measuring import machine, write_result
from tests.fuzz.checking import check_all, summary


def shown(reports):
    """Prints findings as they come."""
    for done, report in enumerate(reports, 1):
        for finding in report.findings:
            print(f"{report.name}: {finding}", flush=True)
        if done % 1000 == 0:
            print(f"{done} mutants", file=sys.stderr, flush=True)
        yield report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--count", type=int, default=2_000, help="how many")
    parser.add_argument("--result", help="name of a file in benchmarks/results to write")
    arguments = parser.parse_args()
    started = time.monotonic()
    numbers = range(arguments.first, arguments.first + arguments.count)
    counts = summary(shown(check_all(numbers)))
    result = {
        "first": arguments.first,
        **counts,
        "seconds": round(time.monotonic() - started, 1),
        "machine": machine(),
    }
    if arguments.result:
        write_result(arguments.result, result)
    print({name: result[name] for name in ("mutants", "statuses", "seconds")})
    sys.exit(1 if counts["findings"] else 0)


if __name__ == "__main__":
    main()
