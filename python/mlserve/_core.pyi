"""The Rust extension: the data plane in this process."""

from collections.abc import Sequence
from typing import TypeAlias, final

from typing_extensions import Buffer

_ParameterValue: TypeAlias = bool | int | float | str
_Input: TypeAlias = tuple[str, str, Sequence[int], Buffer]
_Output: TypeAlias = tuple[str, str, list[int], bytes]

__all__ = ["Server", "__version__", "error_table", "run_cli"]
__version__: str

def run_cli(args: Sequence[str], ort_library: str | None = None) -> int: ...
def error_table() -> list[dict[str, str | int]]: ...

@final
class Server:
    def __new__(cls, settings_json: str, ort_library: str | None = None) -> Server: ...
    def start(self) -> None: ...
    def addresses(self) -> dict[str, str]: ...
    def stop(self, drain: bool) -> None: ...
    def infer(
        self,
        model: str,
        version: str,
        inputs: Sequence[_Input],
        outputs: Sequence[str],
        parameters: dict[str, _ParameterValue],
        timeout_us: int | None,
    ) -> tuple[str, str, list[_Output], dict[str, _ParameterValue]]: ...
    def model_metadata(self, model: str, version: str) -> bytes: ...
    def snapshot(self) -> str: ...
