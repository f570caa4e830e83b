"""The protocol files against a foreign client's descriptors, field by field.

Wire compatibility is a promise about numbers and types, so it is read off the two compiled descriptors rather than
trusted to a reader.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor

from mlserve.client._proto import inference_pb2, model_config_pb2

foreign_service = pytest.importorskip("tritonclient.grpc.service_pb2")
foreign_config = pytest.importorskip("tritonclient.grpc.model_config_pb2")

# The Open Inference Protocol's own addition, which the foreign client lacks and skips.
OURS_ALONE = {("ModelMetadataResponse", "properties"), ("ModelMetadataResponse.PropertiesEntry", None)}


def messages_of(*files: FileDescriptor) -> dict[str, Descriptor]:
    """Every message, nested ones too, under its dotted name without the package."""

    def walk(message: Descriptor, prefix: str) -> Iterator[tuple[str, Descriptor]]:
        name = f"{prefix}{message.name}"
        yield name, message
        for nested in message.nested_types:
            yield from walk(nested, f"{name}.")

    return {
        name: found
        for file in files
        for message in file.message_types_by_name.values()
        for name, found in walk(message, "")
    }


def enums_of(*files: FileDescriptor) -> dict[str, EnumDescriptor]:
    """Every enum under its full name."""
    top = [enum for file in files for enum in file.enum_types_by_name.values()]
    nested = [enum for message in messages_of(*files).values() for enum in message.enum_types]
    return {enum.full_name: enum for enum in top + nested}


def facts_of(field: FieldDescriptor) -> tuple[Any, ...]:
    """What the wire depends on."""
    return (
        field.name,
        field.number,
        field.type,
        field.is_repeated,
        field.message_type.full_name if field.message_type else None,
        field.enum_type.full_name if field.enum_type else None,
        field.containing_oneof.name if field.containing_oneof else None,
    )


OURS = messages_of(inference_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR)
FOREIGN = messages_of(foreign_service.DESCRIPTOR, foreign_config.DESCRIPTOR)


def test_the_same_messages_exist() -> None:
    assert set(OURS) - set(FOREIGN) == {name for name, field in OURS_ALONE if field is None}
    assert set(FOREIGN) <= set(OURS)


@pytest.mark.parametrize("name", sorted(FOREIGN))
def test_message_has_the_same_fields(name: str) -> None:
    ours = {facts_of(field) for field in OURS[name].fields if (name, field.name) not in OURS_ALONE}
    assert ours == {facts_of(field) for field in FOREIGN[name].fields}


def test_enums_have_the_same_values() -> None:
    def values(enums: dict[str, EnumDescriptor]) -> dict[str, dict[str, int]]:
        return {name: {value.name: value.number for value in enum.values} for name, enum in enums.items()}

    ours = values(enums_of(inference_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR))
    assert ours == values(enums_of(foreign_service.DESCRIPTOR, foreign_config.DESCRIPTOR))


def test_service_has_the_same_rpcs() -> None:
    def rpcs(file: FileDescriptor) -> dict[str, tuple[str, str, bool, bool]]:
        service = file.services_by_name["GRPCInferenceService"]
        return {
            method.full_name: (
                method.input_type.full_name,
                method.output_type.full_name,
                method.client_streaming,
                method.server_streaming,
            )
            for method in service.methods
        }

    ours = rpcs(inference_pb2.DESCRIPTOR)
    assert len(ours) == 20
    assert ours == rpcs(foreign_service.DESCRIPTOR)


def test_metadata_carries_the_protocols_own_properties() -> None:
    field = OURS["ModelMetadataResponse"].fields_by_name["properties"]
    assert field.number == 6
    assert field.message_type is not None
    assert field.message_type.GetOptions().map_entry
