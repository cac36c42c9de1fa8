"""One seed of the simulation, with its whole trace: `one_seed.py SEED [--digest] [--folder FOLDER]`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

from machine import Bench
from scenario import Story


def main() -> int:
    """Run it; 1 if it found something."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("--digest", action="store_true", help="print only what identifies the run")
    parser.add_argument("--folder", type=Path, help="where the file is made")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        bench = Bench(Path(folder))
        story = Story(bench, asked.seed)
        try:
            told = story.play()
            print(told.digest if asked.digest else "\n".join(story.invariants.trace))
        except AssertionError as violation:
            print("\n".join(story.invariants.trace))
            print(f"{type(violation).__name__}: {violation}", file=sys.stderr)
            return 1
        finally:
            story.end()
            bench.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
