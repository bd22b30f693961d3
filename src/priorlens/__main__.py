"""`priorlens` and `python -m priorlens`: the commands, and how every error becomes one line and an exit code."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from priorlens import __version__
from priorlens.commands.calibrate import calibrate
from priorlens.commands.combine import combine
from priorlens.commands.demo import demo
from priorlens.commands.evaluate import evaluate
from priorlens.commands.figure import figure
from priorlens.commands.fit import fit
from priorlens.commands.inspect import inspect
from priorlens.commands.monitor import monitor
from priorlens.commands.report import report
from priorlens.commands.score import score
from priorlens.commands.view import view
from priorlens.errors import EXIT_INTERRUPTED, PriorlensError

EXIT_CODES = """\b
Exit codes:
  0    done
  2    the command line is wrong
  3    an image, mask, folder or manifest cannot be used
  4    the model folder is missing, damaged, foreign or newer
  5    the output folder cannot be written, or is in use
  6    the backbone is unknown, or its weights cannot be had here
  7    done, but for some inputs, which are named
  8    done, and the monitor raised an alarm
  9    of several processes that train together another one has ended
  130  stopped by Ctrl-C; nothing is half-written
"""


class OneLineErrors(TyperGroup):
    """Commands whose errors are one line on stderr; with PRIORLENS_DEBUG=1 in the environment, a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except PriorlensError as error:
            if os.environ.get("PRIORLENS_DEBUG"):
                raise
            typer.echo(f"priorlens: {error}", err=True)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt as interrupt:
            typer.echo(f"priorlens: {str(interrupt) or 'stopped; nothing is half-written'}", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None


app = typer.Typer(
    name="priorlens",
    cls=OneLineErrors,
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> bool:
    if asked:
        typer.echo(f"priorlens {__version__}")
        raise typer.Exit
    return asked


@app.callback()
def priorlens(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Tell that a medical image does not look healthy, and where, from healthy images alone.

    \b
    The usual way, after priorlens demo:
      priorlens fit healthy/ --out model
      priorlens score model new/ --out results
      priorlens evaluate model dataset --out evaluation
    """


for command in (demo, fit, score, evaluate, calibrate, combine, monitor, report, view, figure, inspect):
    app.command()(command)


def main() -> None:
    """The entry point of the installed command."""
    app(prog_name="priorlens")


if __name__ == "__main__":
    main()
