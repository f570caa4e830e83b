"""Every error of mlserve as a class: one for each row of the error table, and those of starting up.

The table itself is in the Rust core; a test holds these classes against it. Rust raises them, the clients map a
server's answer to them, and nothing in mlserve raises anything else. This module imports nothing, because the command
line and the extension load it at start.
"""

from __future__ import annotations

# Type checkers take it for true; importing typing would cost `mlserve serve` milliseconds.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import ClassVar, Literal, TypeAlias

    Fault: TypeAlias = Literal["client", "server", "neither"]
    Retry: TypeAlias = Literal["no", "yes", "once", "by_caller"]


class MlserveError(Exception):
    """The base of all errors of mlserve.

    Attributes:
        code: Stable word for programs and logs; the server sends it, metrics carry it.
        http_status: Status of the HTTP answer.
        grpc_code: Number of the gRPC status.
        fault: Whose fault it is.
        retry: Whether sending the same request again can help.
    """

    code: ClassVar[str] = "error"
    http_status: ClassVar[int] = 500
    grpc_code: ClassVar[int] = 2
    fault: ClassVar[Fault] = "server"
    retry: ClassVar[Retry] = "no"

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed when it is sent again."""
        return self.retry in {"yes", "once"}


# ---- rows of the error table, in its order --------------------------------------------------------------------------


class InvalidArgumentError(MlserveError):
    """The request is malformed: a name, type, shape, byte count, JSON, or a value that the model refuses."""

    code = "invalid_argument"
    http_status = 400
    grpc_code = 3
    fault = "client"


class NotFoundError(MlserveError):
    """No such model or version."""

    code = "not_found"
    http_status = 404
    grpc_code = 5
    fault = "client"


class UnknownRouteError(MlserveError):
    """No such route or RPC."""

    code = "unknown_route"
    http_status = 404
    grpc_code = 12
    fault = "client"


class MethodNotAllowedError(MlserveError):
    """The route exists, but not with this HTTP method."""

    code = "method_not_allowed"
    http_status = 405
    grpc_code = 12
    fault = "client"


class NotAllowedError(MlserveError):
    """A web page of another origin, or a host name that may be anybody's, may not do this."""

    code = "not_allowed"
    http_status = 403
    grpc_code = 7
    fault = "client"


class TooLargeError(MlserveError):
    """A body, message, tensor count, rank or nesting is above its limit."""

    code = "too_large"
    http_status = 413
    grpc_code = 8
    fault = "client"


class HeadersTooLargeError(MlserveError):
    """The header fields are above their limit."""

    code = "headers_too_large"
    http_status = 431
    grpc_code = 8
    fault = "client"


class SlowClientError(MlserveError):
    """The body arrived more slowly than the limits allow."""

    code = "slow_client"
    http_status = 408
    grpc_code = 4
    fault = "client"


class UnavailableError(MlserveError):
    """The server cannot answer now, or cannot be reached; the base of all errors that mean "later"."""

    code = "unavailable"
    http_status = 503
    grpc_code = 14
    fault = "server"
    retry: ClassVar[Retry] = "yes"


class QueueFullError(UnavailableError):
    """The model's queue is full."""

    code = "queue_full"


class TooManyRequestsError(UnavailableError):
    """The server has as many requests in flight as it may have."""

    code = "too_many_requests"


class OutOfBudgetError(UnavailableError):
    """The byte budget of the process is spent."""

    code = "out_of_budget"


class NotReadyError(UnavailableError):
    """The model is known but cannot answer now."""

    code = "not_ready"


class ModelControlError(UnavailableError):
    """Models are loaded and unloaded by request only in model control mode explicit."""

    code = "model_control"
    retry = "no"


class DrainingError(UnavailableError):
    """The server is shutting down."""

    code = "draining"


class QueueTimeoutError(UnavailableError):
    """The request waited longer than its timeout or the queue's policy allows."""

    code = "queue_timeout"


class DeadlineExceededError(MlserveError):
    """The deadline passed, or cannot be met any more."""

    code = "deadline_exceeded"
    http_status = 504
    grpc_code = 4
    fault = "neither"
    retry = "by_caller"


class RequestCancelledError(MlserveError):
    """The caller is gone."""

    code = "cancelled"
    http_status = 499
    grpc_code = 1
    fault = "client"


class NotOfferedError(MlserveError):
    """The server does not offer this."""

    code = "not_offered"
    http_status = 501
    grpc_code = 12
    fault = "client"


class InternalError(MlserveError):
    """The model or the runtime failed."""

    code = "internal"
    http_status = 500
    grpc_code = 13
    fault = "server"
    retry = "once"


# ---- starting and stopping ------------------------------------------------------------------------------------------


class ConfigError(MlserveError):
    """A setting is unknown or has a value that is not allowed; nothing was started."""

    code = "config"
    fault = "client"


class ModelLoadError(MlserveError):
    """No model could be loaded, so there is nothing to serve."""

    code = "model_load"


class LifecycleError(MlserveError):
    """The server was used before it started, after it stopped, or in a forked child."""

    code = "lifecycle"
    fault = "client"


# ---- what a client makes of an answer -------------------------------------------------------------------------------

ROWS: tuple[type[MlserveError], ...] = (
    InvalidArgumentError,
    NotFoundError,
    UnknownRouteError,
    MethodNotAllowedError,
    NotAllowedError,
    TooLargeError,
    HeadersTooLargeError,
    SlowClientError,
    QueueFullError,
    TooManyRequestsError,
    OutOfBudgetError,
    NotReadyError,
    ModelControlError,
    DrainingError,
    QueueTimeoutError,
    DeadlineExceededError,
    RequestCancelledError,
    NotOfferedError,
    InternalError,
)

# Header and trailer in which a server may name the row; without it the statuses below decide.
CODE_HEADER = "mlserve-code"

_BY_CODE = {row.code: row for row in ROWS}

# Several rows share a status; it stands for what they have in common.
_BY_GRPC: dict[int, type[MlserveError]] = {
    1: RequestCancelledError,
    2: InternalError,
    3: InvalidArgumentError,
    4: DeadlineExceededError,
    5: NotFoundError,
    # Foreign servers say that something exists already; ours and HTTP call it an invalid argument.
    6: InvalidArgumentError,
    7: NotAllowedError,
    8: TooLargeError,
    12: NotOfferedError,
    13: InternalError,
    14: UnavailableError,
}
_BY_HTTP: dict[int, type[MlserveError]] = {
    400: InvalidArgumentError,
    403: NotAllowedError,
    404: NotFoundError,
    405: MethodNotAllowedError,
    408: SlowClientError,
    413: TooLargeError,
    429: UnavailableError,
    431: HeadersTooLargeError,
    499: RequestCancelledError,
    500: InternalError,
    501: NotOfferedError,
    502: UnavailableError,
    503: UnavailableError,
    504: DeadlineExceededError,
}


def error_class(
    *, code: str | None = None, grpc_code: int | None = None, http_status: int | None = None
) -> type[MlserveError]:
    """The class for a server's refusal: by its own word if it gave one, else by the transport's status."""
    if code in _BY_CODE:
        return _BY_CODE[code]
    if grpc_code is not None:
        return _BY_GRPC.get(grpc_code, MlserveError)
    if http_status is not None:
        return _BY_HTTP.get(http_status, MlserveError)
    return MlserveError
