"""`priorlens view`: a page on this machine to look around in results, and to give it files to score."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from priorlens.commands.options import Overwrite

if TYPE_CHECKING:
    from priorlens.viewer.drops import Drops
    from priorlens.viewer.shelf import Shelf

MIB = 2**20


def view(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULTS|IMAGE...",
            help="A folder that priorlens score or evaluate wrote; or, with --model, images or scans to score first.",
        ),
    ],
    model: Annotated[
        Path | None,
        typer.Option("--model", metavar="MODEL", help="Scores the images given here, and files dropped on the page."),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option("--alpha", metavar="A", help="As of priorlens score, for what is scored here."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Keeps what is scored here. Default: forgotten at the end."),
    ] = None,
    overwrite: Overwrite = False,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, metavar="N", help="0: one that is free.")] = 8642,
    host: Annotated[
        str,
        typer.Option(
            "--host", metavar="ADDRESS", help="Where to listen. Any other than this lets other machines in, unasked."
        ),
    ] = "127.0.0.1",
    upload_limit: Annotated[
        int, typer.Option("--upload-limit", min=1, metavar="MIB", help="Of all files that are dropped together.")
    ] = 1024,
    hide_identifiers: Annotated[
        bool,
        typer.Option(
            "--hide-identifiers",
            help='Say "case 17" and "patient 3" in place of the names of files, folders and patients; leave out '
            "tables, report and pictures, which name them.",
        ),
    ] = False,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Open a page to look around in results: slices, map, regions, two cases side by side.

    The page lies on this machine and loads nothing from anywhere; other machines do not reach it unless --host lets
    them. With --model files can be dropped on it to be scored. Ctrl-C ends it.

    \b
    Examples:
      priorlens view results
      priorlens view results --model model --alpha .05
      priorlens view scan.nii.gz --model model
      ssh -L 8642:127.0.0.1:8642 server     # to look at results on a server
    """
    from priorlens.commands.score_scans import require_there
    from priorlens.commands.terminal import warn
    from priorlens.viewer.guard import is_loopback
    from priorlens.viewer.shelf import Shelf

    require_there(inputs)
    _end_as_with_ctrl_c()
    listening = _listen(host, port)
    with listening, _folder(out, overwrite) as folder:
        shelf = Shelf(hide=hide_identifiers)
        shelf.add(_results(inputs, model, alpha, folder))
        drops = _drops(folder, shelf, model, alpha, upload_limit * MIB) if model else None
        name = f"[{host}]" if ":" in host else host
        address = f"http://{name}:{listening.getsockname()[1]}/"
        if not is_loopback(host):
            warn(f"{address}: whoever reaches this machine sees these results, without a password")
        typer.echo(f"{address}: open it in a browser; Ctrl-C ends it")
        _serve(shelf, drops, host, listening, address if open_browser else "")


def _end_as_with_ctrl_c() -> None:
    """Whatever ends it, such as a terminal that is closed, what it was given is forgotten."""
    import signal

    for name in ("SIGTERM", "SIGHUP"):
        with suppress(AttributeError, ValueError):  # not of this system, not the main thread
            signal.signal(getattr(signal, name), signal.default_int_handler)


@contextmanager
def _folder(out: Path | None, overwrite: bool) -> Iterator[Path]:
    """For what is scored here."""
    from tempfile import TemporaryDirectory

    from priorlens.outputs import prepare_folder

    if out is not None:
        yield prepare_folder(out, overwrite=overwrite)
        return
    with TemporaryDirectory(prefix="priorlens-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _results(inputs: list[Path], model: Path | None, alpha: float | None, folder: Path) -> Path:
    """The results to look at; those of images are made first. Raises InputError."""
    from priorlens.commands.score import score
    from priorlens.errors import EXIT_SOME_FAILED, InputError
    from priorlens.report.watched import is_watched
    from priorlens.result_folder import SCORES

    first = inputs[0]
    if len(inputs) == 1 and first.is_dir() and is_watched(first):
        raise InputError(f"{first}: was written by priorlens monitor; look at its report.html")
    if len(inputs) == 1 and (first / SCORES).is_file():
        return first
    if model is None:
        raise InputError(f"{first}: is no results folder; add --model to score it first, or give such a folder")
    results = folder / "scored"
    try:
        score(model, str(results), list(map(str, inputs)), alpha=alpha, overwrite=True)
    except typer.Exit as stopped:
        if stopped.exit_code != EXIT_SOME_FAILED:
            raise
    return results


def _drops(folder: Path, shelf: Shelf, model: Path, alpha: float | None, most_bytes: int) -> Drops:
    """What scores files that are dropped. Raises ModelError, BadParameter for an alpha that is no rate."""
    from functools import partial

    from priorlens.commands.view_scoring import score_files
    from priorlens.scan_model import is_scan_model
    from priorlens.viewer.drops import Drops
    from priorlens.viewer.scorer import Scorer

    if alpha is not None and not 0 < alpha < 1:
        raise typer.BadParameter(f"--alpha {alpha:g} is no rate; give one between 0 and 1, such as .05")
    scorer = Scorer(partial(score_files, model.resolve(), alpha))
    return Drops(folder, shelf, scorer, of_scans=is_scan_model(model), most_bytes=most_bytes)


def _listen(host: str, port: int) -> socket.socket:
    """So that whoever asks from now on is answered. Raises OutputError: the address is not this machine's, or taken."""
    from priorlens.errors import OutputError

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()
    except (OSError, TypeError) as error:  # a host may be no name at all
        listening.close()
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        line = f"{host}:{port}: cannot be listened on ({reason}); choose another --port or --host"
        raise OutputError(line) from error
    return listening


def _serve(shelf: Shelf, drops: Drops | None, host: str, listening: socket.socket, opened: str) -> None:
    """Until Ctrl-C. Requests are not logged, nor what they come to: that may hold names."""
    import webbrowser

    import uvicorn

    from priorlens.viewer.server import create_app

    server = uvicorn.Server(
        uvicorn.Config(
            create_app(shelf, drops, host=host),
            log_level="critical",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=2,
        )
    )
    if opened:
        webbrowser.open(opened)
    try:
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listening])
    finally:
        if drops:
            drops.close()
    typer.echo("ended")
