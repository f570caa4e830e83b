"""Where a server is, read from what the user wrote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mlserve.errors import InvalidArgumentError

if TYPE_CHECKING:
    from mlserve.types import Protocol

DEFAULT_PORTS: dict[Protocol, int] = {"http": 8000, "grpc": 8001}
_SCHEMES: dict[str, Protocol | None] = {"": None, "grpc": "grpc", "http": "http", "unix": None}


@dataclass(frozen=True)
class Address:
    """A server's address and the protocol to speak with it.

    Attributes:
        protocol: What to speak; every port of an mlserve server answers both.
        host: Name or IP address; empty for a Unix socket.
        port: TCP port; 0 for a Unix socket.
        path: File of a Unix socket, else empty.
    """

    protocol: Protocol
    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def authority(self) -> str:
        """`host:port`, as URLs and the Host header have it."""
        if self.path:
            return "localhost"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def grpc_target(self) -> str:
        """The address in gRPC's own spelling."""
        return f"unix:{self.path}" if self.path else self.authority


def parse_address(url: str, protocol: Protocol | None = None) -> Address:
    """Reads `host`, `host:port`, `grpc://…`, `http://…` or `unix:///path`.

    The scheme decides the protocol unless `protocol` does; without either it is gRPC.

    Raises:
        InvalidArgumentError: The text is none of these, or its scheme contradicts `protocol`.
    """
    if protocol not in {None, "grpc", "http"}:
        raise InvalidArgumentError(f"protocol '{protocol}' is unknown; use 'grpc' or 'http'")
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
        port = parts.port
    except ValueError as error:
        raise InvalidArgumentError(f"url '{url}' cannot be read: {error}") from error
    if parts.scheme not in _SCHEMES:
        raise InvalidArgumentError(f"url '{url}' has the unknown scheme '{parts.scheme}'; use grpc, http or unix")
    own = _SCHEMES[parts.scheme]
    if own and protocol and own != protocol:
        raise InvalidArgumentError(f"url '{url}' contradicts protocol '{protocol}'")
    chosen = protocol or own or "grpc"
    if parts.scheme == "unix":
        if not parts.path or parts.netloc:
            raise InvalidArgumentError(f"url '{url}' names no socket; write unix:///path/to/socket")
        return Address(chosen, path=parts.path)
    if not parts.hostname or parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise InvalidArgumentError(f"url '{url}' cannot be read; write host:port, http://host:port or unix:///path")
    return Address(chosen, host=parts.hostname, port=DEFAULT_PORTS[chosen] if port is None else port)
