"""The collector is as its own OpenAPI says: schemathesis asks it with what fits and with what does not."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from collecting import running

EXAMPLES = os.environ.get("SESSIONSTORE_OPENAPI_EXAMPLES", "4")
# Too many events are 413, as too many bytes are, though the schema tells of the limit.
CONFIG = """
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 409, 413, 415, 422]
"""
# A schema cannot say what a printable character in normal form C is, nor how large metadata may become: what fits the schema
# may be refused with 422, and an answer that finds nothing is 404.
LEFT_OUT = "positive_data_acceptance"


@pytest.mark.timeout(170)
def test_the_collector_is_as_its_openapi_says(tmp_path: Path) -> None:
    seed = os.environ.get("SESSIONSTORE_SEED") or str(random.randrange(2**32))
    print(f"SESSIONSTORE_SEED={seed}")
    keys = tmp_path / "keys"
    keys.write_text("k" * 32)
    keys.chmod(0o600)
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    with running(tmp_path / "c.db", "--api-key-file", str(keys)) as collector:
        command = [
            sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()",
            "--config-file", "schemathesis.toml", "run",
            f"{collector.url}/openapi.json", "--header", f"Authorization: Bearer {'k' * 32}", "--max-examples", EXAMPLES,
            "--seed", seed, "--phases", "coverage,fuzzing", "--exclude-checks", LEFT_OUT, "--no-color",
            "--generation-database", "none", "--workers", "2",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=160, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert collector.stop() == 0
        assert collector.process.stderr is not None
        # uvicorn's words for what is no HTTP; nothing else was worth a line.
        assert set(collector.process.stderr.read().splitlines()) <= {"Invalid HTTP request received."}
