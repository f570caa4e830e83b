"""Writes the Python modules of the protocol: `make protos`.

protoc makes the descriptors and the type stubs; the modules themselves are written here, because protoc's own register
every message in the process-wide pool, where another client of the same protocol in the same process has the same names:
whichever is imported second would fail. Ours live in a pool of their own. They also use only public functions of
protobuf, so no generated-code version has to match the installed runtime.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet

PROTOS = Path(__file__).resolve().parent
TARGET = PROTOS.parent / "python" / "mlserve" / "client" / "_proto"
# Each file after those that it imports.
NAMES = ("model_config", "inference")
CHUNK_BYTES = 72
HEADER = '"""Written by `make protos` from protos/{name}.proto; do not edit."""\n\n'


def descriptors() -> dict[str, FileDescriptorProto]:
    """Compiles the files and returns their descriptors by name, reduced to what a client needs."""
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / "set.bin"
        files = [f"{name}.proto" for name in NAMES]
        protoc(f"--descriptor_set_out={compiled}", *files)
        found = FileDescriptorSet.FromString(compiled.read_bytes())
    for file in found.file:
        file.ClearField("source_code_info")
        for message in file.message_type:
            clear_json_names(message)
    return {file.name.removesuffix(".proto"): file for file in found.file}


def clear_json_names(message: DescriptorProto) -> None:
    """Drops the derived JSON names, which every runtime can derive itself."""
    for field in message.field:
        field.ClearField("json_name")
    for nested in message.nested_type:
        clear_json_names(nested)


def stubs() -> dict[str, str]:
    """The compiler's type stubs by file name."""
    with tempfile.TemporaryDirectory() as folder:
        protoc(f"--pyi_out={folder}", *(f"{name}.proto" for name in NAMES))
        found = {path.name: path.read_text() for path in Path(folder).glob("*.pyi")}
    relative = "from mlserve.client._proto import model_config_pb2 as _model_config_pb2"
    return {
        name: HEADER.format(name=name.removesuffix("_pb2.pyi"))
        + text.replace("import model_config_pb2 as _model_config_pb2", relative)
        for name, text in found.items()
    }


def protoc(*arguments: str) -> None:
    """Runs the compiler that grpcio-tools carries."""
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", *arguments], check=True)


def module_of(name: str, file: FileDescriptorProto) -> str:
    """The text of one module."""
    data = file.SerializeToString(deterministic=True)
    chunks = [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)]
    lines = [
        HEADER.format(name=name) + "from google.protobuf.message_factory import GetMessageClass",
        "",
        "from mlserve.client._proto.pool import POOL",
        *(
            f"from mlserve.client._proto import {other.removesuffix('.proto')}_pb2  # noqa: F401 -- fills the pool first"
            for other in file.dependency
        ),
        "",
        "DESCRIPTOR = POOL.AddSerializedFile(",
        *(f"    {chunk!r}" for chunk in chunks),
        ")",
        "",
        *(f'{m.name} = GetMessageClass(DESCRIPTOR.message_types_by_name["{m.name}"])' for m in file.message_type),
    ]
    return "\n".join(lines) + "\n"


def written() -> dict[str, str]:
    """Every file that belongs into the package, by name."""
    found = descriptors()
    modules = {f"{name}_pb2.py": module_of(name, found[name]) for name in NAMES}
    return modules | stubs()


if __name__ == "__main__":
    for name, text in written().items():
        (TARGET / name).write_text(text)
        print(f"wrote {(TARGET / name).relative_to(PROTOS.parent)}")
