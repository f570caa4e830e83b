"""JSON made of as many parts as fit, wherever parts may be: linear time, off the loops, and little memory."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest

from tests.attacks.harness.aim import Aim, Tally, http_outcome
from tests.graphs import identity
from tests.raw_http2 import http_call

if TYPE_CHECKING:
    from tests.attacks.conftest import MakeField
    from tests.attacks.harness.aim import Attack

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

V2 = "/v2/models/numbers/infer"
ONE = b'{"name":"x","datatype":"FP32","shape":[1,1],"data":[1]}'
ALLOWED = {"ok", "invalid_argument", "too_large", "out_of_budget", "headers_too_large", "closed"}


def documents(size: int) -> dict[str, tuple[str, bytes]]:
    """Route and body by name, each about `size` bytes."""

    def many(piece: bytes, count: int) -> bytes:
        return b",".join([piece] * count)

    def numbered(piece: bytes, count: int) -> bytes:
        return b",".join(piece % index for index in range(count))

    sound = b'"inputs":[' + ONE + b"]"
    return {
        "parameters": (V2, b'{"parameters":{' + numbered(b'"p%d":1', size // 12) + b"}," + sound + b"}"),
        "one parameter, often": (V2, b'{"parameters":{' + many(b'"p":1', size // 6) + b"}," + sound + b"}"),
        "parameters of an input": (
            V2,
            b'{"inputs":[' + ONE[:-1] + b',"parameters":{' + numbered(b'"p%d":1', size // 12) + b"}}]}",
        ),
        "inputs": (V2, b'{"inputs":[' + many(b"{}", size // 3) + b"]}"),
        "inputs of a name": (V2, b'{"inputs":[' + many(ONE, size // len(ONE)) + b"]}"),
        "outputs": (V2, b"{" + sound + b',"outputs":[' + many(b'{"name":"y"}', size // 13) + b"]}"),
        "unknown members": (V2, b"{" + numbered(b'"u%d":[]', size // 12) + b"," + sound + b"}"),
        "one member, often": (V2, b"{" + many(sound, size // len(sound)) + b"}"),
        "dimensions": (V2, b'{"inputs":[{"name":"x","datatype":"FP32","shape":[' + many(b"1", size // 2) + b"]}]}"),
        "a long number": (V2, b'{"inputs":[' + ONE.replace(b"[1]}", b"[" + b"1" * size + b"]}") + b"]}"),
        "a long fraction": (V2, b'{"inputs":[' + ONE.replace(b"[1]}", b"[0." + b"1" * size + b"]}") + b"]}"),
        "escapes": (
            "/v2/models/texts/infer",
            b'{"inputs":[{"name":"x","datatype":"BYTES","shape":[1,1],"data":["' + b"\\u0000" * (size // 6) + b'"]}]}',
        ),
        "spaces": (V2, b"{" + b" " * size + sound + b"}"),
        "a long id": (V2, b'{"id":"' + b"i" * size + b'",' + sound + b"}"),
        "V1 members": ("/v1/models/numbers:predict", b"{" + numbered(b'"u%d":[]', size // 12) + b"}"),
        "V1 columns": ("/v1/models/numbers:predict", b'{"inputs":{' + numbered(b'"u%d":[1]', size // 12) + b"}}"),
        "predict columns": ("/predict/numbers", b"{" + numbered(b'"u%d":[1]', size // 12) + b"}"),
        "b64": ("/v1/models/texts:predict", b'{"instances":[[' + many(b'{"b64":""}', size // 11) + b"]]}"),
    }


def over_http1(aim: Aim) -> Tally:
    tally = Tally()
    for name, (route, body) in documents(aim.size).items():
        _count(tally, name, http_outcome(aim.http, "POST", route, body), len(body))
    return tally


def over_http2(aim: Aim) -> Tally:
    """The same over HTTP/2 without gRPC, where windows are the server's to give."""
    tally = Tally()
    for name, (route, body) in documents(aim.size).items():
        answer = http_call(aim.http, "POST", route, body)
        outcome = "ok" if answer.status == 200 else answer.headers.get("mlserve-code", str(answer.status))
        _count(tally, name, outcome, len(body))
    return tally


def compressed(aim: Aim) -> Tally:
    """The same, compressed: some of them to a hundredth."""
    tally = Tally()
    for name, (route, body) in documents(aim.size).items():
        packed = gzip.compress(body, 6)
        _count(tally, name, http_outcome(aim.http, "POST", route, packed, content_encoding="gzip"), len(packed))
    return tally


def _count(tally: Tally, name: str, outcome: str, sent_bytes: int) -> None:
    tally.add(outcome if outcome in ALLOWED else f"{name}: {outcome}", sent_bytes)


@pytest.mark.parametrize("attack", [over_http1, over_http2, compressed])
def test_parts_cost_what_their_bytes_cost(make_field: MakeField, attack: Attack) -> None:
    field = make_field({"numbers": identity("FP32"), "texts": identity("BYTES")})
    size = field.scale.pick(1 << 20, 16 << 20)
    name = f"JSON crowds, {attack.__name__.replace('_', ' ')}"
    # What a compressed body becomes may be held once.
    field.attack(name, attack, size=size, allowed=ALLOWED, memory_slack=4 * size + (48 << 20))
