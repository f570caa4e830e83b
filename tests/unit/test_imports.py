"""What importing costs: nothing heavy before it is used."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import mlserve

HEAVY = {"numpy", "grpc", "google.protobuf", "onnxruntime", "click", "aiohttp", "http.client", "asyncio"}
# Each costs the start of `mlserve serve` milliseconds.
SLOW = HEAVY | {"typing", "pathlib", "dataclasses"}
NEEDS_EXTENSION = {"Server", "__version__"}


def modules_after(code: str) -> set[str]:
    """Names of the modules that a fresh interpreter has loaded after running `code`."""
    program = f"import sys, json\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout))


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not modules_after("import mlserve") & HEAVY


def test_errors_and_types_load_nothing_heavy() -> None:
    assert not modules_after("import mlserve.errors, mlserve.types") & HEAVY


def test_the_command_line_loads_nothing_heavy_before_serving() -> None:
    code = "import mlserve.cli.core; from mlserve.serving.runtime import find_ort_library; find_ort_library()"
    assert not modules_after(code) & SLOW


def test_finding_the_runtime_does_not_load_it() -> None:
    code = "from mlserve.serving.runtime import find_ort_library; assert find_ort_library()"
    assert not modules_after(code) & HEAVY


def test_the_http_client_needs_no_grpc() -> None:
    code = "import mlserve; mlserve.Client('http://127.0.0.1:1')"
    assert not modules_after(code) & {"grpc", "google.protobuf", "aiohttp"}


@pytest.mark.parametrize("name", sorted(set(mlserve.__all__) - NEEDS_EXTENSION))
def test_every_public_name_is_found(name: str) -> None:
    assert getattr(mlserve, name) is not None


@pytest.mark.server
@pytest.mark.parametrize("name", sorted(NEEDS_EXTENSION))
def test_every_public_name_of_the_extension_is_found(name: str) -> None:
    assert getattr(mlserve, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Sever'"):
        mlserve.Sever  # noqa: B018 -- looking it up is the test


def test_dir_lists_the_public_names() -> None:
    assert dir(mlserve) == sorted(mlserve.__all__)
