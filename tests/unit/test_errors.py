"""The error classes against the Rust table, and what clients make of a status."""

from __future__ import annotations

import pytest

from mlserve import errors


@pytest.mark.server
def test_classes_are_the_rows_of_the_rust_table() -> None:
    from mlserve import _core  # noqa: PLC0415 -- needs the extension

    ours = [
        {"code": row.code, "http": row.http_status, "grpc": row.grpc_code, "fault": row.fault, "retry": row.retry}
        for row in errors.ROWS
    ]
    keys = ("code", "http", "grpc", "fault", "retry")
    assert ours == [{key: row[key] for key in keys} for row in _core.error_table()]


def test_codes_are_distinct() -> None:
    classes = [
        value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.MlserveError)
    ]
    codes = [value.code for value in classes]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("row", errors.ROWS, ids=lambda row: row.code)
def test_a_servers_own_word_names_the_row(row: type[errors.MlserveError]) -> None:
    assert errors.error_class(code=row.code, grpc_code=2, http_status=500) is row


@pytest.mark.parametrize("row", errors.ROWS, ids=lambda row: row.code)
def test_a_status_alone_gives_a_class_that_has_it(row: type[errors.MlserveError]) -> None:
    assert errors.error_class(grpc_code=row.grpc_code).grpc_code == row.grpc_code
    assert errors.error_class(http_status=row.http_status).http_status == row.http_status


def test_unavailable_covers_every_reason_to_come_again_later() -> None:
    for row in errors.ROWS:
        assert issubclass(row, errors.UnavailableError) == (row.http_status == 503)


@pytest.mark.parametrize(("status", "expected"), [(418, "error"), (302, "error")])
def test_an_unknown_status_is_no_particular_error(status: int, expected: str) -> None:
    assert errors.error_class(http_status=status).code == expected
    assert errors.error_class(grpc_code=99).code == expected
    assert errors.error_class(code="from_the_future").code == expected


def test_retryable_says_whether_the_same_request_may_succeed() -> None:
    assert errors.QueueFullError("full").retryable
    assert errors.InternalError("once").retryable
    assert not errors.InvalidArgumentError("never").retryable
    assert not errors.DeadlineExceededError("the caller's choice").retryable
