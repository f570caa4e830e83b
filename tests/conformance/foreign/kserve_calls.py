"""Asks a server through KServe's unmodified client and prints what came back as JSON: `kserve_calls.py HTTP GRPC`.

A program of its own: KServe's package has an environment of its own, and its messages cannot live in one process with
those of another client.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable
from typing import Any

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig

MODEL = "mlp"
ROWS = np.arange(24, dtype=np.float32).reshape(3, 8)


def request(model: str, *, binary: bool, rows: np.ndarray[Any, Any] = ROWS) -> InferRequest:
    tensor = InferInput("x", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows, binary_data=binary)
    return InferRequest(model, [tensor], request_id="wagon 7")


def told(answer: Any) -> dict[str, Any]:
    """An answer of version 2, whichever way it came."""
    (output,) = answer.outputs
    return {
        "model": answer.model_name,
        "id": answer.id,
        "shape": list(output.shape),
        "data": output.as_numpy().ravel().tolist(),
    }


async def outcome(call: Awaitable[Any]) -> Any:
    """What a call answers, or how it fails."""
    try:
        return await call
    except Exception as error:  # noqa: BLE001 -- whatever it is, the test decides
        return f"{type(error).__name__}: {error}"


async def version_one(url: str) -> dict[str, Any]:
    async with InferenceRESTClient(RESTConfig(protocol="v1")) as client:
        return {
            "live": await outcome(client.is_server_live(url)),
            "ready": await outcome(client.is_model_ready(url, MODEL)),
            "unknown_ready": await outcome(client.is_model_ready(url, "nobody")),
            "instances": await outcome(client.infer(url, {"instances": ROWS.tolist()}, model_name=MODEL)),
            "inputs": await outcome(client.infer(url, {"inputs": {"x": ROWS.tolist()}}, model_name=MODEL)),
            "unknown": await outcome(client.infer(url, {"instances": ROWS.tolist()}, model_name="nobody")),
        }


async def version_two(url: str) -> dict[str, Any]:
    async def infer(*, binary: bool) -> dict[str, Any]:
        return told(await client.infer(url, request(MODEL, binary=binary), model_name=MODEL))

    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        return {
            "live": await outcome(client.is_server_live(url)),
            "ready": await outcome(client.is_server_ready(url)),
            "model_ready": await outcome(client.is_model_ready(url, MODEL)),
            "unknown_ready": await outcome(client.is_model_ready(url, "nobody")),
            "binary": await outcome(infer(binary=True)),
            "json": await outcome(infer(binary=False)),
            "unknown": await outcome(client.infer(url, request("nobody", binary=True), model_name="nobody")),
        }


async def grpc(address: str) -> dict[str, Any]:
    async def infer() -> dict[str, Any]:
        return told(await client.infer(request(MODEL, binary=True)))

    async with InferenceGRPCClient(address) as client:
        return {
            "live": await outcome(client.is_server_live()),
            "ready": await outcome(client.is_server_ready()),
            "model_ready": await outcome(client.is_model_ready(MODEL)),
            "unknown_ready": await outcome(client.is_model_ready("nobody")),
            "infer": await outcome(infer()),
            "unknown": await outcome(client.infer(request("nobody", binary=True))),
        }


async def main(http: str, address: str) -> None:
    found = {"v1": await version_one(f"http://{http}"), "v2": await version_two(f"http://{http}")}
    print(json.dumps({**found, "grpc": await grpc(address)}))  # noqa: T201 -- its only purpose


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
