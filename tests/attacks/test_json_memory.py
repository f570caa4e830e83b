"""Numbers and lists in JSON, and BYTES elements: a byte that is sent takes a few bytes of memory, whatever it says."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest

from tests.attacks.harness.aim import Aim, Tally, ask_both_ways, grpc_outcome, http_outcome
from tests.graphs import identity
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from tests.attacks.conftest import MakeField
    from tests.attacks.harness.aim import Attack

pytestmark = [pytest.mark.server, pytest.mark.timeout(180)]

MODELS = {"texts": "BYTES", "numbers": "FP32", "flags": "BOOL", "bytes": "UINT8"}


def documents(size: int) -> dict[str, tuple[str, bytes]]:
    """Route and body by name, each about `size` bytes."""
    texts, digits = size // 3, size // 2

    def v2(datatype: str, count: int, data: bytes) -> bytes:
        start = b'{"inputs":[{"name":"x","datatype":"%s","shape":[1,%d],"data":[' % (datatype.encode(), count)
        return start + data + b"]}]}"

    empty, zeros = b",".join([b'""'] * texts), b",".join([b"0"] * digits)
    nested = b",".join([b"[]"] * texts)
    return {
        "V2 numbers": ("/v2/models/numbers/infer", v2("FP32", digits, zeros)),
        "V2 lists": ("/v2/models/numbers/infer", v2("FP32", 0, nested)),
        "V1 numbers": ("/v1/models/numbers:predict", b'{"instances":[[' + zeros + b"]]}"),
        "V1 rows": ("/v1/models/numbers:predict", b'{"instances":[' + b",".join([b"[0]"] * (size // 4)) + b"]}"),
        "V1 objects": (
            "/v1/models/numbers:predict",
            b'{"instances":[' + b",".join([b'{"x":[0]}'] * (size // 10)) + b"]}",
        ),
        "V1 lists": ("/v1/models/numbers:predict", b'{"instances":[' + nested + b"]}"),
        "predict texts": ("/predict/texts", b'{"x":[[' + empty + b"]]}"),
        "predict numbers": ("/predict/numbers", b'{"x":[[' + zeros + b"]]}"),
        "predict unknown": ("/predict/numbers", b'{"y":[' + nested + b"]}"),
    }


def numbers(aim: Aim) -> Tally:
    tally = Tally()
    for name, (route, body) in documents(aim.size).items():
        outcome = http_outcome(aim.http, "POST", route, body)
        tally.add(outcome if outcome in {"ok", "invalid_argument", "too_large", "out_of_budget"} else name, len(body))
    return tally


def elements(aim: Aim) -> Tally:
    """Raw BYTES elements of no bytes: four bytes each."""
    tally = Tally()
    inference = Inference("texts", [Tensor("x", "BYTES", (1, aim.size // 4), bytes(aim.size // 4 * 4))])
    ask_both_ways(tally, aim, inference)
    return tally


def gzip_members(aim: Aim) -> Tally:
    """A body of empty gzip members, and one whose last says something."""
    tally = Tally()
    empty = gzip.compress(b"")
    members = empty * (aim.size // len(empty))
    for body in (members, members + gzip.compress(b"{}")):
        tally.add(http_outcome(aim.http, "POST", "/v2/models/numbers/infer", body, content_encoding="gzip"), len(body))
        tally.add(grpc_outcome(aim.grpc, body, is_compressed=True), len(body))
    return tally


@pytest.mark.parametrize("attack", [numbers, elements])
def test_a_byte_takes_few_bytes_of_memory(make_field: MakeField, attack: Attack) -> None:
    field = make_field({name: identity(datatype) for name, datatype in MODELS.items()})
    name = f"memory of {'JSON' if attack is numbers else 'BYTES elements'}"
    size = field.scale.pick(3 << 20, 32 << 20)
    allowed = {"ok", "invalid_argument", "too_large", "out_of_budget"}
    field.attack(name, attack, size=size, allowed=allowed, cpu_slack_s=1)


def test_empty_gzip_members_are_refused_early(make_field: MakeField) -> None:
    field = make_field({name: identity(datatype) for name, datatype in MODELS.items()})
    figures = field.attack(
        "gzip members",
        gzip_members,
        size=field.scale.pick(4 << 20, 32 << 20),
        allowed={"invalid_argument", "too_large"},
        cpu_slack_s=0.5,
    )
    assert figures.cpu_s < 4, "members that hold nothing are counted, not unpacked one by one to the end"
