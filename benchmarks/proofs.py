"""The long proofs, and a record of what each gave.

    .venv/bin/python benchmarks/proofs.py [tests ...] [--name proofs]

Runs `pytest -m proof` (on the tests named, else all) and writes benchmarks/results/NAME.json: how
many passed, failed and were skipped, and the seconds and outcome of each group of proofs.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from xml.etree import ElementTree

from record import write


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tests", nargs="*", default=["tests"])
    parser.add_argument("--name", default="proofs", help="of the file under results/")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        record = Path(place) / "proofs.xml"
        command = [sys.executable, "-m", "pytest", "-m", "proof", f"--junitxml={record}"]
        environment = {"OMP_NUM_THREADS": str(os.cpu_count()), **os.environ}
        done = subprocess.run([*command, *arguments.tests], env=environment, check=False)
        cases = list(ElementTree.parse(record).iter("testcase"))
    groups: dict[str, Counter[str]] = defaultdict(Counter)
    seconds: dict[str, float] = defaultdict(float)
    for case in cases:
        group = f"{case.get('classname')}.{(case.get('name') or '').partition('[')[0]}"
        kinds = {child.tag for child in case} & {"failure", "error", "skipped"}
        groups[group][kinds.pop() if kinds else "passed"] += 1
        seconds[group] += float(case.get("time") or 0)
    total: Counter[str] = sum(groups.values(), Counter())
    rows = {
        group: {**count, "seconds": round(seconds[group], 1)} for group, count in groups.items()
    }
    print(write(arguments.name, {"tests": arguments.tests, "total": dict(total), "proofs": rows}))
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
