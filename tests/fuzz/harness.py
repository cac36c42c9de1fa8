"""Gives the targets to a fuzzer that is guided by coverage, each for some seconds, and tells what it found.

    python tests/fuzz/harness.py --seconds 60            # every target
    python tests/fuzz/harness.py --seconds 600 cursor    # some

It needs the dependency group `fuzz` (Linux). `make fuzz` sets up an environment for it. Inputs that break a promise are kept in
the folder that `--findings` names; `--corpus` names one that keeps what was found to reach new code.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

FOLDER: Final = Path(__file__).parent
sys.path[:0] = [str(FOLDER), str(FOLDER.parent)]
_GRACE_SECONDS: Final = 120
# A target that takes longer for one input hangs.
_TIMEOUT_SECONDS: Final = 60
_MOST_BYTES: Final = 1 << 16
# All of them are tried before anything new is.
_MOST_SEEDS: Final = 100
_FIGURE: Final = re.compile(r"stat::number_of_executed_units: (\d+)")
_COVERAGE: Final = re.compile(r"cov: (\d+)")


class Outcome(NamedTuple):
    """What came of a target."""

    executions: int
    covered: int
    finding: str | None


def names() -> list[str]:
    """The names of all targets, without importing what they test."""
    text = (FOLDER / "fuzz_targets.py").read_text(encoding="utf-8")
    return re.findall(r"^@target\ndef (\w+)\(", text, re.MULTILINE)


def main() -> int:
    """Run the targets, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"all by default: {', '.join(names())}")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"), help="a folder")
    parser.add_argument("--corpus", type=Path, help="a folder; forgotten by default")
    given = parser.parse_args()
    if unknown := set(given.targets) - set(names()):
        parser.error(f"there is no target {', '.join(sorted(unknown))}")
    if importlib.util.find_spec("atheris") is None:
        parser.error("atheris is not installed: the dependency group `fuzz` brings it, on Linux")
    failed = 0
    print(f"{'target':24}{'executions':>12}{'edges':>8}  finding")
    for name in given.targets or names():
        found = run(name, given.seconds, given.findings, given.corpus)
        failed += found.finding is not None
        print(f"{name:24}{found.executions:>12,}{found.covered:>8,}  {found.finding or 'none'}", flush=True)
    return 1 if failed else 0


def run(name: str, seconds: int, findings: Path, corpus: Path | None) -> Outcome:
    """Run one target in a process of its own."""
    findings.mkdir(exist_ok=True, parents=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        kept = Path(scratch) / "corpus" if corpus is None else corpus / name
        kept.mkdir(exist_ok=True, parents=True)
        command = [
            sys.executable,
            __file__,
            f"--inside={name}",
            str(kept),
            f"-max_total_time={seconds}",
            f"-timeout={_TIMEOUT_SECONDS}",
            f"-max_len={_MOST_BYTES}",
            f"-artifact_prefix={findings}/{name}-",
            "-rss_limit_mb=4096",
            "-print_final_stats=1",
        ]
        environment = {**os.environ, "TMPDIR": scratch}
        log = findings / f"{name}.log"
        with log.open("w") as output:
            code = _ended(subprocess.Popen(command, stdout=output, stderr=output, env=environment), seconds + _GRACE_SECONDS)
    text = log.read_text(errors="replace")
    executed, covered = _FIGURE.findall(text), _COVERAGE.findall(text)
    finding = None if code == 0 else f"exit code {code}; see {log}"
    if finding is None:
        log.unlink()
    return Outcome(int(executed[-1]) if executed else 0, int(covered[-1]) if covered else 0, finding)


def _ended(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """The exit code; None if it did not end by itself."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None


def inside(name: str, arguments: list[str]) -> None:
    """The process of one target: its seeds first, then whatever reaches new code."""
    import atheris

    with atheris.instrument_imports(include=["sessionstore"], enable_loader_override=False):
        from fuzz_seeds import seeds
        from fuzz_targets import TARGETS

        begin = seeds(name)
        # Now, since much is imported when it is needed: else it would be neither instrumented nor quick.
        TARGETS[name](begin[0])
    corpus = Path(arguments[0])
    for number, data in enumerate(random.Random(0).sample(begin, min(len(begin), _MOST_SEEDS))):
        (corpus / f"seed-{number}").write_bytes(data)
    if shared := os.environ.get("SESSIONSTORE_TEST_DATA"):
        # Further seeds, where there are any.
        arguments = [arguments[0], shared, *arguments[1:]]
    atheris.Setup([sys.argv[0], *arguments], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1].startswith("--inside="):
        inside(sys.argv[1].removeprefix("--inside="), sys.argv[2:])
    else:
        sys.exit(main())
