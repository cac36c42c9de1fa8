"""The fresh process of `benchmarks.starting`: it imports nothing before it is timed that a side does not import itself."""

import sys
import time

_BEGUN = time.time()

from typing import NamedTuple  # noqa: E402 - the clock comes first

_TURN = [{"role": "user", "content": "And of Italy?"}, {"role": "assistant", "content": "Rome."}]


class Report(NamedTuple):
    """Times in milliseconds and resident memory in MB."""

    total_ms: float
    inside_ms: float
    memory_mb: float


def main() -> None:
    """Open and append as the command line says: side, file, time of the spawn."""
    side, path, spawned = sys.argv[1:]
    (_raw if side == "raw" else _store)(path)
    done = time.time()
    print(list(Report((done - float(spawned)) * 1e3, (done - _BEGUN) * 1e3, resident_mb())))


def _raw(path: str) -> None:
    from pathlib import Path

    from .raw import RawStore

    RawStore(Path(path)).append("session", _TURN)


def _store(path: str) -> None:
    import sessionstore

    sessionstore.open(path).session("session").append_many(_TURN)


def resident_mb() -> float:
    """The resident memory of this process."""
    return _memory_mb("VmRSS")


def peak_mb() -> float:
    """The most resident memory that this process has had."""
    return _memory_mb("VmHWM")


def _memory_mb(name: str) -> float:
    """What /proc says; where there is none, the most that the process has had."""
    try:
        with open("/proc/self/status") as status:  # noqa: PTH123 - pathlib would count
            # Not getrusage: a child's maximum begins with what its parent had.
            return next(float(line.split()[1]) / 1024 for line in status if line.startswith(name))
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


if __name__ == "__main__":
    main()
