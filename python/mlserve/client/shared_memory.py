"""The calls about shared memory: which regions are registered, and registering them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from mlserve.client.operation import Operation, nothing
from mlserve.errors import InvalidArgumentError
from mlserve.types import CudaSharedMemoryRegion, SystemSharedMemoryRegion


def system_shared_memory(name: str) -> Operation[dict[str, SystemSharedMemoryRegion]]:
    """Registered regions of the machine's shared memory."""
    return Operation(
        "SystemSharedMemoryStatus",
        {"name": name},
        _path("system", name, "status"),
        lambda document: {
            key: SystemSharedMemoryRegion(item["name"], item["key"], item.get("offset", 0), item["byte_size"])
            for key, item in document["regions"].items()
        },
        from_http=_regions,
    )


def register_system_shared_memory(name: str, key: str, byte_size: int, offset: int) -> Operation[None]:
    """Registers a region of the machine's shared memory."""
    body = {"key": key, "offset": _size("offset", offset), "byte_size": _size("byte_size", byte_size)}
    path = _path("system", name, "register")
    return Operation("SystemSharedMemoryRegister", {"name": name, **body}, path, nothing, body=body)


def unregister_system_shared_memory(name: str) -> Operation[None]:
    """Forgets one region, or all."""
    path = _path("system", name, "unregister")
    return Operation("SystemSharedMemoryUnregister", {"name": name}, path, nothing, body={})


def cuda_shared_memory(name: str) -> Operation[dict[str, CudaSharedMemoryRegion]]:
    """Registered regions of a GPU's memory."""
    return Operation(
        "CudaSharedMemoryStatus",
        {"name": name},
        _path("cuda", name, "status"),
        lambda document: {
            key: CudaSharedMemoryRegion(item["name"], item.get("device_id", 0), item["byte_size"])
            for key, item in document["regions"].items()
        },
        from_http=_regions,
    )


def register_cuda_shared_memory(name: str, raw_handle: bytes, device_id: int, byte_size: int) -> Operation[None]:
    """Registers a region of a GPU's memory."""
    fields = {"device_id": _size("device_id", device_id), "byte_size": _size("byte_size", byte_size)}
    return Operation(
        "CudaSharedMemoryRegister",
        {"name": name, "raw_handle": raw_handle, **fields},
        _path("cuda", name, "register"),
        nothing,
        body={"raw_handle": {"b64": base64.b64encode(raw_handle).decode()}, **fields},
    )


def unregister_cuda_shared_memory(name: str) -> Operation[None]:
    """Forgets one region, or all."""
    path = _path("cuda", name, "unregister")
    return Operation("CudaSharedMemoryUnregister", {"name": name}, path, nothing, body={})


def _path(kind: str, name: str, tail: str) -> str:
    if not name and tail == "register":
        raise InvalidArgumentError("the region's name is empty")
    return f"/v2/{kind}sharedmemory/" + (f"region/{quote(name, safe='')}/{tail}" if name else tail)


def _regions(document: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    """HTTP lists the regions that gRPC has by name."""
    return {"regions": {item["name"]: item for item in document}}


def _size(name: str, value: int) -> int:
    if value < 0:
        raise InvalidArgumentError(f"{name} is {value}; it cannot be negative")
    return value
