"""JSON bodies that are none, say the wrong thing, or are built to hurt: 400 or 413 with a text, never 500."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.raw_http import HttpAnswer, ask, exchange, head

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

pytestmark = pytest.mark.server

TARGET = "/v2/models/identity_FP32/infer"


def post(
    server: ServerProcess, body: bytes | str, headers: dict[str, str] | None = None, target: str = TARGET
) -> HttpAnswer:
    data = body.encode() if isinstance(body, str) else body
    return ask(server.http, "POST", target, data, headers)


def body_with(**changed: Any) -> str:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2], **changed}
    return json.dumps({"inputs": [{key: value for key, value in tensor.items() if value is not None}]})


def raw_data(text: str, datatype: str = "FP32", shape: str = "[1,1]") -> str:
    return f'{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":{shape},"data":{text}}}]}}'


BROKEN = {
    "nothing but space": ("  \n", "failed to parse"),
    "text": ("hello", "failed to parse"),
    "an array": ("[]", "must be an object"),
    "a number": ("1", "must be an object"),
    "no end": ('{"inputs":[', "failed to parse"),
    "two documents": ('{"inputs":[]}{}', "must not be followed"),
    "a comma too many": ('{"inputs":[],}', "failed to parse"),
    "single quotes": ("{'inputs':[]}", "missing a name"),
    "a comment": ('{"inputs":[] /* none */}', "failed to parse"),
    "no inputs": ("{}", "'inputs'"),
    "inputs as object": ('{"inputs":{}}', "'inputs'"),
    "an input as number": ('{"inputs":[1]}', "'inputs'"),
    "inputs twice": ('{"inputs":[],"inputs":[]}', "'inputs' is there twice"),
    "id as number": ('{"id":1,"inputs":[]}', "'id'"),
    "inputs as null": ('{"inputs":null}', "'inputs'"),
    "nothing": ("", "the body is empty"),
    "white space": (" \r\n", "the body is empty"),
    "a byte order mark": ("\ufeff{}", "byte order mark"),
    "parameters as array": ('{"parameters":[],"inputs":[]}', "'parameters'"),
    "outputs as text": ('{"outputs":"y","inputs":[]}', "'outputs'"),
    "an output without name": ('{"outputs":[{}],"inputs":[]}', "'name'"),
    "a control character": ('{"id":"a\nb","inputs":[]}', "control characters"),
    "an unknown escape": (r'{"id":"\x41","inputs":[]}', "escape"),
    "half a surrogate pair": (r'{"id":"\ud800","inputs":[]}', "surrogate"),
    "a reversed surrogate pair": (r'{"id":"\udc00\ud800","inputs":[]}', "surrogate"),
    "no name": (body_with(name=None), "'name'"),
    "no datatype": (body_with(datatype=None), "'datatype'"),
    "no shape": (body_with(shape=None), "'shape'"),
    "no data": (body_with(data=None), "Input must set only one"),
    "data and bytes": (body_with(parameters={"binary_data_size": 8}), "Input must set only one"),
    "shape as number": (body_with(shape=2), "'shape'"),
    "shape of text": (body_with(shape=["1", "2"]), "dimension 0 of input 'x'"),
    "shape of fractions": (body_with(shape=[1, 2.5]), "2.5"),
    "shape beyond 64 bits": (raw_data("[1]", shape="[1,99999999999999999999]"), "99999999999999999999"),
    "data as text": (body_with(data="12"), "'x'"),
    "data of text": (body_with(data=["1", "2"]), "element 0 of input 'x'"),
    "data of null": (body_with(data=[None, 1]), "element 0 of input 'x'"),
    "too few": (body_with(data=[1]), "'x'"),
    "too many": (body_with(data=[1, 2, 3]), "'x'"),
    "nested otherwise": (body_with(data=[[1], [2]]), "'x'"),
    "nested unevenly": (body_with(data=[1, [2]]), "'x'"),
    "NaN": (raw_data("[NaN]"), "NaN"),
    "minus Infinity": (raw_data("[-Infinity]"), "NaN and Infinity"),
    "a float too large": (raw_data("[1e39]"), "1e39"),
    "a huge exponent": (raw_data("[1e99999999999999999999]"), "'x'"),
    "a leading zero": (raw_data("[01]"), "failed to parse"),
    "a plus sign": (raw_data("[+1]"), "failed to parse"),
    "hexadecimal": (raw_data("[0x10]"), "failed to parse"),
    "a whole number too large": (raw_data("[256]", "UINT8"), "256"),
    "a negative unsigned": (raw_data("[-1]", "UINT8"), "-1"),
    "a fraction as whole": (raw_data("[1.5]", "INT64"), "1.5"),
    "a number as BOOL": (raw_data("[1]", "BOOL"), "'x'"),
    "FP16": (raw_data("[1]", "FP16"), "receiving FP16 data via JSON is not supported"),
    "BF16": (raw_data("[1]", "BF16"), "receiving BF16 data via JSON is not supported"),
    "more elements than fit": (raw_data("[1]", shape="[4294967296,4294967296]"), "'x'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_json_that_says_no_request_is_refused_with_the_place(attacked: ServerProcess, name: str) -> None:
    body, text = BROKEN[name]
    found = post(attacked, body)
    assert found.status == 400, found
    assert text in found.text


@pytest.mark.parametrize(
    "data", [b'{"id":"\xff","inputs":[]}', b"\xef\xbb\xbf{}", b'{"inputs":[]}\0', "{}".encode("utf-16")], ids=repr
)
def test_bytes_that_are_no_utf8_json_are_refused(attacked: ServerProcess, data: bytes) -> None:
    assert post(attacked, data).status == 400


@pytest.mark.parametrize("depth", [65, 1_000, 1_000_000])
@pytest.mark.parametrize(
    ("place", "form"),
    [("unknown", "["), ("unknown", '{"a":'), ("data", "["), ("parameters", "["), ("parameters", '{"a":')],
)
def test_nesting_is_too_large_whatever_its_depth(attacked: ServerProcess, place: str, form: str, depth: int) -> None:
    nested = form * depth
    body = {
        "unknown": f'{{"other":{nested}',
        "data": raw_data(nested)[: -len("}]}")],
        "parameters": f'{{"inputs":[{{"parameters":{{"other":{nested}',
    }[place]
    found = post(attacked, body)
    assert found.status == 413, found.body[:300]
    assert "64 levels" in found.text


def test_nesting_below_the_limit_is_skipped(attacked: ServerProcess) -> None:
    nested = "[" * 60 + "]" * 60
    found = post(attacked, f'{{"other":{nested},{raw_data("[1]")[1:]}')
    assert found.status == 200, found


@pytest.mark.parametrize("digits", [400, 1_000_000])
def test_a_number_of_a_million_digits_costs_little(attacked: ServerProcess, digits: int) -> None:
    assert post(attacked, raw_data(f"[0.{'3' * digits}]")).status == 200
    found = post(attacked, raw_data(f"[{'9' * digits}]"))
    assert found.status == 400
    assert len(found.text) < 1_000


LENGTHS = {
    "no number": ("abc", "got: abc"),
    "negative": ("-1", "got: -1"),
    "beyond the body": ("99999", "got: 99999"),
    "beyond 64 bits": ("99999999999999999999", "99999999999999999999"),
    "with a plus": ("+5", "+5"),
    "a fraction": ("1.0", "1.0"),
    "empty": ("", "got: "),
}


@pytest.mark.parametrize("name", LENGTHS)
def test_a_header_length_that_is_none_is_named(attacked: ServerProcess, name: str) -> None:
    value, text = LENGTHS[name]
    found = post(attacked, body_with(), {"inference-header-content-length": value})
    assert found.status == 400
    assert text in found.text


def test_two_header_lengths_are_refused(attacked: ServerProcess) -> None:
    body = body_with().encode()
    fields = f"content-length: {len(body)}\r\ninference-header-content-length: 5\r\ninference-header-content-length: 6\r\n\r\n"
    found = exchange(attacked.http, head("POST", TARGET)[:-2] + fields.encode() + body)
    assert found is not None
    assert found.status == 400


@pytest.mark.parametrize(
    ("size", "text"),
    [(7, "expected|expecting|additional"), (9, "additional"), (1 << 62, "additional"), ((1 << 64) - 1, "additional")],
)
def test_a_tensor_that_does_not_fit_the_body_is_named(attacked: ServerProcess, size: int, text: str) -> None:
    document = body_with(data=None, parameters={"binary_data_size": size}).encode()
    found = post(attacked, document + b"\0" * 8, {"inference-header-content-length": str(len(document))})
    assert found.status == 400
    assert any(part in found.text for part in text.split("|")), found.text


def test_a_raw_request_needs_bytes_that_fit(attacked: ServerProcess) -> None:
    found = post(attacked, b"\0" * 31, {"inference-header-content-length": "0"}, "/v2/models/mlp/infer")
    assert found.status == 400
    assert "'x'" in found.text
    assert post(attacked, b"\0" * 32, {"inference-header-content-length": "0"}, "/v2/models/mlp/infer").status == 200


def test_an_encoding_that_is_not_offered_is_answered_with_those_that_are(attacked: ServerProcess) -> None:
    found = post(attacked, body_with(), {"content-encoding": "br"})
    assert (found.status, found.headers["accept-encoding"]) == (501, "gzip, deflate")
    assert found.text


@pytest.mark.parametrize("value", ["0", "-1", "soon", "1.5", "99999999999999999999"])
def test_a_timeout_that_is_none_is_named(attacked: ServerProcess, value: str) -> None:
    found = post(attacked, body_with(), {"x-request-timeout-ms": value})
    assert found.status == 400
    assert value in found.text


@pytest.mark.parametrize("value", ["gzip;q=nonsense", "*;q=0", ";;;,,,", "\xff", "identity;q=0", "br"])
def test_a_strange_accept_encoding_is_no_reason_to_refuse(attacked: ServerProcess, value: str) -> None:
    assert post(attacked, body_with(), {"accept-encoding": value}).status == 200
