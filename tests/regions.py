"""Shared memory as a client's tests use it: tritonclient's own objects below `/dev/shm`, gone after the test."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http
import tritonclient.utils.shared_memory as shm

MODULES = {"grpc": tritonclient.grpc, "http": tritonclient.http}
FOLDER = Path("/dev/shm")  # noqa: S108 -- where shm_open has its files


class Region:
    """One shared memory object, made by tritonclient.

    Attributes:
        key: What `shm_open` calls it.
        byte_size: What was asked for.
    """

    def __init__(self, byte_size: int) -> None:
        """Creates an object that no other test has."""
        self.key = f"/mlserve-test-{os.getpid()}-{uuid.uuid4().hex}"
        self.byte_size = byte_size
        self._handle = shm.create_shared_memory_region(self.key, self.key, byte_size)

    @property
    def path(self) -> Path:
        """Its file."""
        return FOLDER / self.key.lstrip("/")

    def put(self, *arrays: np.ndarray[Any, np.dtype[Any]], offset: int = 0) -> None:
        """Writes arrays one behind the other."""
        shm.set_shared_memory_region(self._handle, arrays, offset)

    def get(self, datatype: Any, shape: tuple[int, ...], offset: int = 0) -> np.ndarray[Any, np.dtype[Any]]:
        """A copy of what it holds."""
        found: np.ndarray[Any, np.dtype[Any]] = shm.get_contents_as_numpy(self._handle, datatype, list(shape), offset)
        return found.copy()

    def place(self, name: str, offset: int = 0, byte_size: int | None = None) -> Mapping[str, Any]:
        """The parameters of a tensor that lies in it, registered as `name`."""
        size = self.byte_size - offset if byte_size is None else byte_size
        return {"shared_memory_region": name, "shared_memory_offset": offset, "shared_memory_byte_size": size}

    def remove(self) -> None:
        """Removes the object."""
        shm.destroy_shared_memory_region(self._handle)


MakeRegion = Callable[[int], Region]


@contextmanager
def region(byte_size: int) -> Iterator[Region]:
    """A region that ends with the block."""
    made = Region(byte_size)
    try:
        yield made
    finally:
        made.remove()


def module(client: Any) -> Any:
    """The module of a client of tritonclient."""
    return MODULES["http" if "http" in type(client).__module__ else "grpc"]


def place_input(client: Any, name: str, array: np.ndarray[Any, Any], datatype: str, *place: Any) -> Any:
    """An input of the client's own, in shared memory: region, bytes, offset."""
    tensor = module(client).InferInput(name, list(array.shape), datatype)
    tensor.set_shared_memory(*place)
    return tensor


def place_output(client: Any, name: str, *place: Any) -> Any:
    """A wanted output that is to go there."""
    tensor = module(client).InferRequestedOutput(name)
    tensor.set_shared_memory(*place)
    return tensor


def status(client: Any, name: str = "") -> dict[str, tuple[str, int, int]]:
    """What is registered: key, offset and bytes by name."""
    found = client.get_system_shared_memory_status(name)
    if isinstance(found, list):
        return {row["name"]: (row["key"], row["offset"], row["byte_size"]) for row in found}
    return {name: (row.key, row.offset, row.byte_size) for name, row in found.regions.items()}
