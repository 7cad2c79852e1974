"""The command group, loaded lazily, and the one place where errors become exit codes."""

from __future__ import annotations

import importlib
import io
import logging
import signal
import sys
from typing import Any

import click

from edgedafl import __version__
from edgedafl.errors import EdgeDaflError, EnvironmentMissingError, ExitCode, exit_code_for

__all__ = ["cli", "main"]

_COMMANDS = {
    "compress": "From a teacher to a measured, gated bundle for a device.",
    "inspect": "What a model is, and whether it can be a teacher.",
    "distill": "Only teach a student; no data needed.",
    "search": "Several students, targets and seeds, and the front of the best.",
    "quantize": "A model as it is, in a target's integers; or a run's student.",
    "export": "A bundle for a target from a run.",
    "verify": "Compare two models, or a run's teacher, student and bundle.",
    "profile": "Measure the latency of a run or a bundle.",
    "device": "Boards and phones: add, list, check, calibrate.",
    "bundle": "Look whether a bundle is whole and answers as it should.",
    "report": "Write a run's report again.",
    "diff": "Compare two runs.",
    "gate": "Hold a run or any ONNX file against limits.",
    "history": "What gates found over time, as a table and as a page.",
    "track": "Hand a run's figures to MLflow, TensorBoard or DVC.",
    "targets": "Known deployment targets.",
    "doctor": "What is installed, and what is missing.",
    "init": "Write an edgedafl.toml to start from.",
    "completion": "Shell completion script.",
}

_EPILOG = (
    "Exit codes: 0 done; 1 a gate or parity check failed; 2 usage; 3 missing or wrong environment; "
    "4 device unreachable or measurement invalid; 5 unsupported or broken model; 70 a bug of ours; "
    "130 interrupted, state saved."
)


class _LazyGroup(click.Group):
    """Imports a command's module when it is called: `--help` must not load torch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        from edgedafl.allocator import keep_freed_memory

        keep_freed_memory()
        module = importlib.import_module(f"edgedafl.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], _COMMANDS, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"There is no command {args[0]!r}.{hint}", ctx) from error


@click.group(cls=_LazyGroup, epilog=_EPILOG, context_settings={"max_content_width": 100})
@click.version_option(__version__, prog_name="edgedafl")
def cli() -> None:
    """Compress an image classifier for an edge device, without its training data.

    edgedafl compress teacher.onnx --target jetson
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave the process with the documented exit code.

    Examples:
        >>> main(["gate", "model.onnx", "--max-size", "1MB"])  # ends the process  # doctest: +SKIP
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    logging.basicConfig(level=logging.ERROR, format="%(message)s", stream=sys.stderr)
    logging.getLogger("edgedafl").setLevel(logging.WARNING)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # terminals without a character get another for it
            stream.reconfigure(errors="replace")
    # Schedulers, containers and CI ask a process to stop with SIGTERM: nothing is lost then either.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = cli.main(args=arguments, prog_name="edgedafl", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else ExitCode.DONE)
    except click.ClickException as error:
        error.show()
        sys.exit(ExitCode.USAGE)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted. Finished stages are kept: the same command goes on after them.", err=True)
        sys.exit(ExitCode.INTERRUPTED)
    except EdgeDaflError as error:
        _report_error(error, as_json="--json" in arguments)
        sys.exit(exit_code_for(error))
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(ExitCode.DONE)
    except Exception as error:
        missing = _missing(error)
        if missing is None:
            _report_bug(error, verbose="-v" in arguments or "--verbose" in arguments)
        else:
            _report_error(missing, as_json="--json" in arguments)
        sys.exit(exit_code_for(missing or error))


def _missing(error: Exception) -> EdgeDaflError | None:
    """A package of others that is not installed, as an error of the environment; None for all other errors."""
    name = (getattr(error, "name", None) or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or not name or name.startswith("edgedafl"):
        return None
    return EnvironmentMissingError(f"The package {name!r} is not installed.", "Install all: pip install edgedafl.")


def _report_error(error: EdgeDaflError, *, as_json: bool) -> None:
    if as_json:
        import json

        details = {"error": error.message, "hint": error.hint, "exit_code": int(error.exit_code)}
        click.echo(json.dumps(details))
    click.echo(f"Error: {error.message}", err=True)
    if error.hint:
        click.echo(f"Hint: {error.hint}", err=True)


def _report_bug(error: Exception, *, verbose: bool) -> None:
    import traceback

    click.echo(f"Internal error: {type(error).__name__}: {error}", err=True)
    if verbose:
        click.echo("".join(traceback.format_exception(error)), err=True)
    else:
        click.echo("This is a bug of EdgeDAFL; run again with -v for the details to report.", err=True)
