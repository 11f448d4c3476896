"""`make bench-curation`: every part of curation beside its named peers, then one table of ratios, all from this run.

A part is a module with `main()`, run as a process of its own: `python -m benchmarks.dedup`.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import ratios

PARTS = ("reading", "extraction", "heuristics", "dedup", "chain")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=PARTS, help=f"of {', '.join(PARTS)}; all by default")
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "notes"
        notes.touch()
        for part in parser.parse_args().parts:
            if importlib.util.find_spec(f"benchmarks.{part}") is None:
                print(f"{part}: skipped, there is no benchmarks/{part}.py")
            elif subprocess.run(
                [sys.executable, "-m", f"benchmarks.{part}"], env=os.environ | {ratios.NOTES: str(notes)}
            ).returncode:
                failed.append(part)
        ratios.show(notes)
    if failed:
        raise SystemExit(f"these parts ended with an error, see above: {', '.join(failed)}")


if __name__ == "__main__":
    main()
