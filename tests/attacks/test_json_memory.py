"""Numbers, texts and lists in JSON, and BYTES elements: a byte that is sent takes a few bytes of memory, whatever it says."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import pytest

from mlserve.client._proto import inference_pb2
from tests.attacks.harness.aim import Aim, Tally, grpc_outcome, http_outcome
from tests.graphs import identity
from tests.requests_by_hand import Inference, Tensor

if TYPE_CHECKING:
    from tests.attacks.conftest import MakeField

pytestmark = [pytest.mark.server, pytest.mark.timeout(180)]

# What ONNX Runtime makes of a text, as an input and as an output.
OBJECT_BYTES = 2 * 32
# The text, with its length before it, as it comes and as it goes.
LENGTH_BYTES = 2 * 4
LETTERS = b"sixteen letters."

MODELS = {"texts": "BYTES", "numbers": "FP32", "flags": "BOOL", "bytes": "UINT8"}


def documents(size: int) -> dict[str, tuple[str, bytes]]:
    """Route and body by name, each about `size` bytes."""
    lists, digits = size // 3, size // 2

    def v2(datatype: str, count: int, data: bytes) -> bytes:
        start = b'{"inputs":[{"name":"x","datatype":"%s","shape":[1,%d],"data":[' % (datatype.encode(), count)
        return start + data + b"]}]}"

    zeros = b",".join([b"0"] * digits)
    nested = b",".join([b"[]"] * lists)
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
        "predict numbers": ("/predict/numbers", b'{"features":[' + zeros + b"]}"),
        "predict unknown": ("/predict/numbers", b'{"y":[' + nested + b"]}"),
    }


def numbers(aim: Aim) -> Tally:
    tally = Tally()
    for name, (route, body) in documents(aim.size).items():
        outcome = http_outcome(aim.http, "POST", route, body)
        tally.add(outcome if outcome in {"ok", "invalid_argument", "too_large", "out_of_budget"} else name, len(body))
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


def test_a_byte_takes_few_bytes_of_memory(make_field: MakeField) -> None:
    field = make_field({name: identity(datatype) for name, datatype in MODELS.items()})
    size = field.scale.pick(3 << 20, 32 << 20)
    allowed = {"ok", "invalid_argument", "too_large", "out_of_budget"}
    field.attack("memory of JSON", numbers, size=size, allowed=allowed, cpu_slack_s=1)


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


@dataclass(frozen=True)
class Texts:
    """A request of many texts, for the model `texts`.

    Attributes:
        count: How many.
        each: Bytes of each that the runtime keeps apart from its object, as an input and as an output.
        target: The HTTP route; none: gRPC.
    """

    count: int
    body: bytes
    target: str = ""
    each: int = 0
    fields: tuple[tuple[str, str], ...] = ()

    def __call__(self, aim: Aim) -> Tally:
        tally = Tally()
        declared = self.count * (OBJECT_BYTES + LENGTH_BYTES + self.each)
        if self.target:
            outcome = http_outcome(aim.http, "POST", self.target, self.body, **dict(self.fields))
        else:
            outcome = grpc_outcome(aim.grpc, self.body, is_compressed=bool(self.fields))
        tally.add(outcome, len(self.body), declared)
        return tally


def texts_in_json(target: str, around: bytes, text: bytes, size: int, each: int = 0) -> Texts:
    """As many of the text as fit in `size` bytes; `around` has their count and `%s` where they are."""
    count = size // (len(text) + 1)
    start, end = around.replace(b"COUNT", str(count).encode()).split(b"%s")
    return Texts(count, start + b",".join([text] * count) + end, target, each)


def typed(size: int) -> Texts:
    """Texts in the typed contents of a message: two bytes each."""
    request = inference_pb2.ModelInferRequest(model_name="texts")
    added = request.inputs.add(name="x", datatype="BYTES", shape=[1, size // 2])
    added.contents.bytes_contents.extend([b""] * (size // 2))
    return Texts(size // 2, request.SerializeToString())


def raw(size: int) -> tuple[Texts, Texts]:
    """Texts as raw bytes, four each, over gRPC and over HTTP."""
    inference = Inference("texts", [Tensor("x", "BYTES", (1, size // 4), bytes(size // 4 * 4))])
    body, fields = inference.body()
    named = {name.replace("-", "_"): value for name, value in fields.items()}
    return Texts(size // 4, inference.message()), Texts(size // 4, body, inference.target, fields=tuple(named.items()))


V2 = b'{"inputs":[{"name":"x","datatype":"BYTES","shape":[1,COUNT],"data":[%s]}]}'
V2_LATE = b'{"inputs":[{"data":[%s],"name":"x","datatype":"BYTES","shape":[1,COUNT]}]}'
V2_ROUTE, V1_ROUTE, PREDICT = "/v2/models/texts/infer", "/v1/models/texts:predict", "/predict/texts"
# Of texts that are longer than what fits in their object: a piece of the heap, and what they say as it travels.
LONG = 2 * (32 + len(LETTERS))
WAYS: dict[str, Callable[[int], Texts]] = {
    "V2, empty": partial(texts_in_json, V2_ROUTE, V2, b'""'),
    "V2, data first": partial(texts_in_json, V2_ROUTE, V2_LATE, b'""'),
    "V2, a letter": partial(texts_in_json, V2_ROUTE, V2, b'"a"', each=2),
    "V2, sixteen letters": partial(texts_in_json, V2_ROUTE, V2, b'"' + LETTERS + b'"', each=LONG),
    "V2, escapes": partial(texts_in_json, V2_ROUTE, V2, b'"\\u0000"', each=2),
    "V1, instances": partial(texts_in_json, V1_ROUTE, b'{"instances":[[%s]]}', b'""'),
    "V1, rows": partial(texts_in_json, V1_ROUTE, b'{"instances":[%s]}', b'[""]'),
    "V1, objects": partial(texts_in_json, V1_ROUTE, b'{"instances":[%s]}', b'{"x":[""]}'),
    "V1, base64": partial(texts_in_json, V1_ROUTE, b'{"instances":[[%s]]}', b'{"b64":""}'),
    "V1, inputs": partial(texts_in_json, V1_ROUTE, b'{"inputs":[[%s]]}', b'""'),
    "predict": partial(texts_in_json, PREDICT, b'{"features":[%s]}', b'""'),
    "gRPC, typed": typed,
    "gRPC, raw": lambda size: raw(size)[0],
    "binary": lambda size: raw(size)[1],
}


@pytest.mark.parametrize("way", WAYS)
def test_a_text_takes_little_beside_what_the_runtime_makes_of_it(make_field: MakeField, way: str) -> None:
    """Two bytes for each that is sent, beside the tensors and the runtime's objects: whatever the text, and the way in."""
    field = make_field({"texts": identity("BYTES")})
    size = field.scale.pick(12 << 20, 48 << 20)
    texts = WAYS[way](size)
    figures = field.attack(f"texts: {way}", texts, allowed={"ok"}, cpu_slack_s=10)
    limit = figures.tally.declared_bytes + 2 * len(texts.body) + (8 << 20)
    assert figures.peak_bytes <= limit, f"{figures.peak_bytes / 1e6:.0f} MB more, at most {limit / 1e6:.0f}"


def packed(texts: Texts) -> Texts:
    """The same, compressed to a thousandth."""
    encoding = "content_encoding" if texts.target else "gzip"
    return replace(texts, body=gzip.compress(texts.body), fields=((encoding, "gzip"),))


@pytest.mark.parametrize("way", ["V2, empty", "V1, instances", "predict", "gRPC, typed", "gRPC, raw"])
def test_texts_hold_the_budget_for_what_the_runtime_makes_of_them(make_field: MakeField, way: str) -> None:
    """Two megabytes of texts in a budget of sixteen, which their objects exceed: refused before one is made."""
    budget = 16 << 20
    field = make_field({"texts": identity("BYTES")}, "--byte-budget", str(budget), "--max-body-bytes", str(4 << 20))
    texts = WAYS[way](2 << 20)
    for name, attack in {"plain": texts, "gzip": packed(texts)}.items():
        field.attack(f"texts without room: {way}, {name}", attack, allowed={"out_of_budget"}, memory_slack=budget)
