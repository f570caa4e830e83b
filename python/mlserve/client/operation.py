"""A call that manages a server, described once for both transports.

An answer is read from a plain document with the fields of the answer's message. gRPC's messages are turned into it
(`grpc_codec.document_of`); HTTP answers are such documents already, except on the few routes with a form of their own.
The calls themselves are in `repository.py`, `shared_memory.py` and `settings.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mlserve.errors import InternalError

Found = TypeVar("Found")


def _as_it_is(document: Any) -> Any:
    return document


@dataclass(frozen=True)
class Operation(Generic[Found]):
    """One call, for either transport.

    Attributes:
        rpc: Name of the RPC; its messages are called after it.
        message: Fields of the request's message.
        path: Route over HTTP.
        read: Makes the result of the answer's document.
        body: What is posted over HTTP; `None` asks with GET.
        from_http: Makes the document of what HTTP answers.
        is_long: It takes as long as a model takes to load, so the client's own deadline does not apply.
    """

    rpc: str
    message: Mapping[str, Any]
    path: str
    read: Callable[[Any], Found]
    body: Mapping[str, Any] | None = None
    from_http: Callable[[Any], Any] = _as_it_is
    is_long: bool = False

    def result(self, document: Any, *, is_http: bool = False) -> Found:
        """What the caller gets.

        Raises:
            InternalError: The document is not of the protocol's form.
        """
        try:
            return self.read(self.from_http(document) if is_http else document)
        except (KeyError, TypeError, AttributeError) as error:
            raise InternalError(f"answer lacks a part of the protocol: {error!r}") from error


def nothing(_: Any) -> None:
    """What a call that only does something returns."""
