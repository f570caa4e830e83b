"""Addresses as users write them."""

from __future__ import annotations

from typing import Any

import pytest

from mlserve.client.address import Address, parse_address
from mlserve.errors import InvalidArgumentError


@pytest.mark.parametrize(
    ("url", "protocol", "expected"),
    [
        ("localhost", None, Address("grpc", "localhost", 8001)),
        ("localhost", "http", Address("http", "localhost", 8000)),
        ("127.0.0.1:9", None, Address("grpc", "127.0.0.1", 9)),
        ("grpc://h:9", None, Address("grpc", "h", 9)),
        ("http://h:9", None, Address("http", "h", 9)),
        ("http://h:9/", "http", Address("http", "h", 9)),
        ("http://h", None, Address("http", "h", 8000)),
        ("[::1]:9", None, Address("grpc", "::1", 9)),
        ("unix:///run/m.sock", None, Address("grpc", path="/run/m.sock")),
        ("unix:///run/m.sock", "http", Address("http", path="/run/m.sock")),
    ],
)
def test_url_is_read(url: str, protocol: Any, expected: Address) -> None:
    assert parse_address(url, protocol) == expected


@pytest.mark.parametrize(
    ("url", "protocol", "text"),
    [
        ("https://h:9", None, "unknown scheme 'https'"),
        ("http://h:9", "grpc", "contradicts"),
        ("h:9", "rest", "protocol 'rest' is unknown"),
        ("h:99999", None, "cannot be read"),
        ("h:port", None, "cannot be read"),
        ("http://h:9/v2", None, "cannot be read"),
        ("", None, "cannot be read"),
        ("unix://m.sock", None, "names no socket"),
    ],
)
def test_what_is_no_address_is_refused(url: str, protocol: Any, text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=text):
        parse_address(url, protocol)


@pytest.mark.parametrize(
    ("address", "authority", "target"),
    [
        (Address("grpc", "h", 9), "h:9", "h:9"),
        (Address("grpc", "::1", 9), "[::1]:9", "[::1]:9"),
        (Address("grpc", path="/a b"), "localhost", "unix:/a b"),
    ],
)
def test_address_is_spelled_for_its_transport(address: Address, authority: str, target: str) -> None:
    assert (address.authority, address.grpc_target) == (authority, target)
