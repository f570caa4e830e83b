"""Starts servers whose standard output and error are what a test wants: a pipe that nobody reads, a full disk, nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest

from tests.conftest import START_LIMIT_S, ServerProcess, eventually

Output = int | IO[bytes] | None


@contextmanager
def served(
    folder: Path,
    models: Path,
    *flags: str,
    stdout: Output = subprocess.DEVNULL,
    stderr: Output = subprocess.DEVNULL,
    environment: Mapping[str, str] | None = None,
) -> Iterator[ServerProcess]:
    """A server that ends with the block. Its log is where a test put it, so `ServerProcess.log` may be empty."""
    ready, log = folder / "ready.json", folder / "log.txt"
    ready.unlink(missing_ok=True)
    log.touch()
    ports = [part for name in ("http", "grpc", "metrics") for part in (f"--{name}-port", "0")]
    command = [sys.executable, "-m", "mlserve", "serve", str(models), *ports, "--ready-file", str(ready), *flags]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env={**os.environ, **(environment or {})}
    )
    try:
        eventually(
            lambda: ready.exists() or process.poll() is not None, limit_s=START_LIMIT_S, what="the server is ready"
        )
        if not ready.exists():
            pytest.fail(f"the server ended with status {process.returncode}")
        found = json.loads(ready.read_text())
        yield ServerProcess(process, found["http"], found["grpc"], found["metrics"], log)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()


@contextmanager
def full_pipe() -> Iterator[int]:
    """The writing end of a pipe that nobody reads and that has no room left; the writer waits as a server's would."""
    read, write = os.pipe()
    try:
        os.set_blocking(write, False)
        with suppress(BlockingIOError):
            while True:
                os.write(write, bytes(4_096))
        with suppress(BlockingIOError):
            while True:
                os.write(write, b"\n")
        os.set_blocking(write, True)
        yield write
    finally:
        os.close(read)
        os.close(write)


@contextmanager
def broken_pipe() -> Iterator[int]:
    """The writing end of a pipe whose reader is gone."""
    read, write = os.pipe()
    os.close(read)
    try:
        yield write
    finally:
        os.close(write)


@contextmanager
def full_disk() -> Iterator[int]:
    """A file that takes nothing: ENOSPC."""
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
