"""The click group: commands in Python, and the core's commands for the list in `--help`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from mlserve.errors import MlserveError

Command = TypeVar("Command", bound=Callable[..., Any])

_PASSED_ON = {"ignore_unknown_options": True, "allow_extra_args": True}


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def group() -> None:
    """Serve models over the Open Inference Protocol, and ask them."""


def run_group(arguments: Sequence[str]) -> int:
    """Runs the group and returns the exit status."""
    try:
        result = group.main(args=list(arguments), prog_name="mlserve", standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("aborted", err=True)
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except MlserveError as error:
        click.echo(f"mlserve: {error} [{error.code}]", err=True)
        return 1
    except BrokenPipeError:
        # Whoever read the output has read enough, `head` for example. What is left in the buffer is for nobody.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return result if isinstance(result, int) else 0


def _core_command(name: str, summary: str) -> click.Command:
    """A command that the core runs; `mlserve.cli.main` takes it before click does, except behind `--help`."""

    @click.pass_context
    def callback(context: click.Context) -> int:
        from mlserve.cli.core import run  # noqa: PLC0415 -- loads the extension

        return run([name, *context.args])

    return click.Command(name, callback=callback, help=summary, add_help_option=False, context_settings=_PASSED_ON)


group.add_command(_core_command("serve", "Serve models from a file or a directory."))
group.add_command(_core_command("inspect", "Say what would be served from a model file, and whether it can batch."))
group.add_command(_core_command("config", "Print every setting with its value, as TOML."))


@group.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed  # noqa: PLC0415 -- only this command needs it

    click.echo(f"mlserve {installed('mlserve')}")


def server_options(command: Command) -> Command:
    """The options that say which server is asked."""
    protocols = click.Choice(["grpc", "http"])
    command = click.option("--protocol", type=protocols, help="By default what the url says, else grpc.")(command)
    return click.option(
        "--url", default="127.0.0.1:8001", show_default=True, help="Server: host:port or unix:///path."
    )(command)


@group.command()
@click.argument("model")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@server_options
@click.option("--version", "model_version", default="", help="Version to ask; by default the server chooses.")
@click.option("--timeout-s", type=float, default=30.0, show_default=True, help="Deadline of the request.")
@click.option("--output", type=click.Choice(["json", "npz"]), default="json", show_default=True, help="Answer's form.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File for the answer; npz needs one.")
def infer(
    model: str,
    file: Path,
    url: str,
    protocol: str | None,
    model_version: str,
    timeout_s: float,
    output: str,
    out: Path | None,
) -> None:
    """Send one request to MODEL and print the answer.

    FILE is "-" for JSON from standard input, a .npz file with one array per input, or JSON:

    \b
      {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}
      {"x": [[1, 2]]}
      [[1, 2]]                     for a model with a single input
    """  # noqa: D301 -- the character that click takes for "as it stands"
    from mlserve.cli.infer import answer_text, ask, write_npz  # noqa: PLC0415 -- numpy and the client cost 0.2 s

    if output == "npz" and out is None:
        raise click.UsageError("--output npz needs --out FILE")
    result = ask(model, file, url=url, protocol=protocol, version=model_version, timeout_s=timeout_s)
    if output == "npz" and out is not None:
        write_npz(out, result)
        click.echo(f"{out}: {', '.join(result)} from {result.model_name} version {result.model_version}", err=True)
    elif out is not None:
        out.write_text(answer_text(result) + "\n")
    else:
        click.echo(answer_text(result))


@group.command()
@server_options
@click.option("--ready", is_flag=True, help="Only what is ready.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
@click.option("--timeout-s", type=float, default=30.0, show_default=True, help="Deadline of the call.")
def models(url: str, protocol: str | None, ready: bool, as_json: bool, timeout_s: float) -> None:  # noqa: FBT001 -- click
    """List the models that a server knows, and their states."""
    from mlserve.cli.manage import connect, models_text  # noqa: PLC0415 -- the client costs 0.2 s

    with connect(url, protocol, timeout_s) as client:
        click.echo(models_text(client, ready=ready, as_json=as_json))


@group.command()
@click.argument("model")
@server_options
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="Configuration instead of the repository's: JSON, or a .pbtxt file.",
)
@click.option("--timeout-s", type=float, help="Deadline; by default it takes as long as it takes.")
def load(model: str, url: str, protocol: str | None, config: Path | None, timeout_s: float | None) -> None:
    """Load MODEL, or load it again. The server must run with --model-control-mode explicit."""
    from mlserve.cli.manage import connect, read_config  # noqa: PLC0415 -- the client costs 0.2 s

    with connect(url, protocol, timeout_s) as client:
        client.load_model(model, config=read_config(config) if config else None, timeout_s=timeout_s)
    click.echo(f"{model} is loaded", err=True)


@group.command()
@click.argument("model")
@server_options
@click.option("--timeout-s", type=float, help="Deadline; by default it takes as long as it takes.")
def unload(model: str, url: str, protocol: str | None, timeout_s: float | None) -> None:
    """Unload MODEL. The server must run with --model-control-mode explicit."""
    from mlserve.cli.manage import connect  # noqa: PLC0415 -- the client costs 0.2 s

    with connect(url, protocol, timeout_s) as client:
        client.unload_model(model, timeout_s=timeout_s)
    click.echo(f"{model} is unloaded", err=True)


@group.command()
@click.argument("model", default="")
@server_options
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table; with --watch one line each time.")
@click.option("--watch", "every_s", type=click.FloatRange(min=0.1), help="Show rates, every so many seconds.")
@click.option("--timeout-s", type=float, default=30.0, show_default=True, help="Deadline of each call.")
def stats(
    model: str,
    url: str,
    protocol: str | None,
    as_json: bool,  # noqa: FBT001 -- click
    every_s: float | None,
    timeout_s: float,
) -> None:
    """Show what a server has counted: requests, rows, runs, and what they took, for MODEL or for all."""
    from mlserve.cli.manage import connect, statistics_text, watch  # noqa: PLC0415 -- the client costs 0.2 s

    with connect(url, protocol, timeout_s) as client:
        if every_s is None:
            click.echo(statistics_text(client, model, as_json=as_json))
            return
        for text in watch(client, model, every_s, as_json=as_json):
            click.echo(text if as_json else f"{text}\n")


if __name__ == "__main__":
    sys.exit(run_group(sys.argv[1:]))
