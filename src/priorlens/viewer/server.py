"""The viewer's server: the page, what it is told, layers of a case, and files that are given to it."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Header, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from priorlens import __version__
from priorlens.errors import InputError, OutputError
from priorlens.report.facts import PAGE
from priorlens.viewer.answers import LayerName, Results, Scoring, Told, results, told
from priorlens.viewer.drops import Drop, Drops, State
from priorlens.viewer.guard import Application, Guard
from priorlens.viewer.nifti_layers import layer_file
from priorlens.viewer.shelf import TABLES, Shelf, Shelved
from priorlens.viewer.uploads import ENOUGH, partial_of, require_kind, safe_name, suffixes

STATIC = Path(__file__).parent / "static"
_NO_ROOM = "the file cannot be kept; free some space, or give it another name"
NO_MODEL = "No model was given: start priorlens view with --model to score files here."


class Progress(BaseModel):
    """Where dropped files stand. done, total: slices or images. cases: their numbers, once done."""

    drop: int
    state: State
    done: int
    total: int
    words: str
    cases: list[int]

    @classmethod
    def of(cls, drop: Drop) -> Progress:
        return cls(
            drop=drop.number,
            state=drop.state,
            done=drop.done,
            total=drop.total,
            words=drop.words,
            cases=list(drop.cases),
        )


class Refusal(BaseModel):
    """Why something was refused, in one line."""

    detail: str


def create_app(shelf: Shelf, drops: Drops | None, *, host: str = "127.0.0.1") -> Application:
    """The whole application, guarded. drops: None where nothing can be scored."""
    app = FastAPI(
        title="priorlens view",
        version=__version__,
        description="Research software, not a medical device.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=_refusals(403, 422, 500),
    )
    _add_refusals(app, hide=shelf.hide)
    _add_pages(app, shelf)
    _add_results(app, shelf, drops)
    _add_drops(app, drops)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return Guard(app, host=host)


def _add_refusals(app: FastAPI, *, hide: bool) -> None:
    """Each in one line. hide: of what is wrong with files nothing is told that may name them."""

    @app.exception_handler(InputError)
    @app.exception_handler(OutputError)
    def one_line(request: Request, error: Exception) -> JSONResponse:
        line = "a file of the results cannot be read or written" if hide else str(error)
        return JSONResponse({"detail": line}, status_code=422 if isinstance(error, InputError) else 507)

    @app.exception_handler(RequestValidationError)
    def not_valid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return JSONResponse({"detail": f"{where}: {first['msg']}"}, status_code=422)

    @app.exception_handler(Exception)
    def unforeseen(request: Request, error: Exception) -> JSONResponse:
        """Tells where it happened, which is of use in a report, and not what: that may hold names."""
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__} in {Path(last.filename).name}, line {last.lineno}"
        return JSONResponse({"detail": f"this version has a defect here ({where}); please report it"}, status_code=500)


def _add_pages(app: FastAPI, shelf: Shelf) -> None:
    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    @app.get("/api", include_in_schema=False)
    def api() -> FileResponse:
        return FileResponse(STATIC / "api.html")

    @app.get("/report", include_in_schema=False)
    def report() -> Response:
        """The report has its own policy inside, which lets in what is written in it and nothing else."""
        path = None if shelf.hide else shelf.first.file(PAGE)
        if path is None:
            raise HTTPException(404, "there is no report")
        own = "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
        return FileResponse(path, headers={"content-security-policy": own})


def _add_results(app: FastAPI, shelf: Shelf, drops: Drops | None) -> None:
    def case_of(number: int) -> Shelved:
        if (found := shelf.get(number)) is None:
            raise HTTPException(404, f"there is no case {number}")
        return found

    @app.get("/api/results", tags=["results"])
    def all_results() -> Results:
        """Everything but single cases."""
        return results(shelf, _scoring(drops))

    @app.get("/api/cases/{number}", tags=["results"], responses={404: {"model": Refusal}})
    def case(number: int) -> Told:
        """One case, with all that is said of it."""
        return told(case_of(number))

    @app.get("/api/cases/{number}/layers/{layer}.nii.gz", tags=["results"], **_file_of("application/gzip"))
    def layer(number: int, layer: LayerName) -> Response:
        """A layer as NIfTI. Layers of a case lie on one grid; an image is a single slice."""
        content = layer_file(case_of(number), layer)
        if content is None:
            raise HTTPException(404, f"case {number} has no {layer}")
        return Response(content, media_type="application/gzip")

    @app.get("/api/cases/{number}/overlay.png", tags=["results"], **_file_of("image/png"))
    def overlay(number: int) -> FileResponse:
        """The picture of a case: image, map, outlines."""
        path = case_of(number).overlay
        if path is None:
            raise HTTPException(404, f"case {number} has no picture")
        return FileResponse(path, media_type="image/png")

    @app.get("/api/tables/{name}", tags=["results"], **_file_of("text/csv"))
    def table(name: str) -> FileResponse:
        """A table of the results folder, as it lies there."""
        path = shelf.first.file(name) if name in TABLES and not shelf.hide else None
        if path is None:
            raise HTTPException(404, "there is no such table")
        return FileResponse(path, media_type="text/csv", filename=name)


def _add_drops(app: FastAPI, drops: Drops | None) -> None:
    def drops_with(number: int) -> Drops:
        if drops is None or drops.get(number) is None:
            raise HTTPException(404, f"there is no drop {number}")
        return drops

    @app.post("/api/drops", tags=["scoring"], status_code=201, responses=_refusals(409, 507))
    def begin() -> Progress:
        """Begin to give files that are scored together: images, or the files of scans."""
        if drops is None:
            raise HTTPException(409, NO_MODEL)
        return Progress.of(drops.new())

    @app.post(
        "/api/drops/{number}/files", tags=["scoring"], status_code=204, responses=_refusals(400, 404, 413, 415, 507)
    )
    async def add(number: int, request: Request, x_file_name: Annotated[str, Header()]) -> None:
        """One file as the body; its name, percent-encoded, in the header X-File-Name."""
        await _receive(drops_with(number), number, request, x_file_name)

    @app.post("/api/drops/{number}/start", tags=["scoring"], status_code=202, responses=_refusals(404))
    def start(number: int) -> Progress:
        """Score the files. Ask for the drop to see how far it is."""
        found = drops_with(number)
        found.start(number)
        return _progress(found, number)

    @app.get("/api/drops/{number}", tags=["scoring"], responses=_refusals(404))
    def progress(number: int) -> Progress:
        """How far the files are."""
        return _progress(drops_with(number), number)

    @app.delete("/api/drops/{number}", tags=["scoring"], status_code=204, responses=_refusals(404))
    def cancel(number: int) -> None:
        """Stop scoring and forget the files."""
        drops_with(number).cancel(number)


def _progress(drops: Drops, number: int) -> Progress:
    drop = drops.get(number)
    assert drop is not None
    return Progress.of(drop)


def _scoring(drops: Drops | None) -> Scoring:
    if drops is None:
        return Scoring(possible=False, why_not=NO_MODEL, most_bytes=0, suffixes=[])
    return Scoring(possible=True, why_not="", most_bytes=drops.most_bytes, suffixes=suffixes(drops.of_scans))


async def _receive(drops: Drops, number: int, request: Request, told_name: str) -> None:
    """Write a file as it comes, and never more of it than there is room for."""
    try:
        name = safe_name(told_name)
        path = drops.place(number, name)
    except InputError as error:
        raise HTTPException(415, str(error)) from error
    except OutputError as error:
        raise HTTPException(507, _NO_ROOM) from error
    claimed = request.headers.get("content-length", "0")
    if claimed.isdigit() and int(claimed) > drops.room(number):
        raise _too_large(drops)
    partial = partial_of(path)
    size, start, known, kept = 0, b"", False, False
    try:
        with open(partial, "wb") as file:
            async for chunk in request.stream():
                if len(chunk) > drops.room(number):
                    raise _too_large(drops)
                drops.take(number, len(chunk))
                size += len(chunk)
                if not known:
                    start += chunk[:ENOUGH]
                    known = len(start) >= ENOUGH
                    if known:
                        _require_kind(name, start, drops)
                file.write(chunk)
        if not known:
            _require_kind(name, start, drops)
        os.replace(partial, path)
        kept = True
        drops.added(number)
    except OSError as error:
        raise HTTPException(507, _NO_ROOM) from error
    except ClientDisconnect as error:
        raise HTTPException(400, "the file did not arrive whole; send it again") from error
    finally:
        partial.unlink(missing_ok=True)
        if not kept:
            drops.take(number, -size)


def _require_kind(name: object, start: bytes, drops: Drops) -> None:
    try:
        require_kind(name, start, drops.of_scans)  # type: ignore[arg-type]
    except InputError as error:
        line = str(error)
        raise HTTPException(415, line.partition(": ")[2] if drops.shelf.hide else line) from error


def _too_large(drops: Drops) -> HTTPException:
    return HTTPException(413, f"is larger than {drops.most_bytes // 2**20} MiB, all files together; give fewer")


def _refusals(*codes: int) -> dict[int | str, dict[str, object]]:
    return {code: {"model": Refusal} for code in codes}


def _file_of(kind: str) -> dict[str, Any]:
    """What is said of an operation that answers with a file."""
    return {"response_class": Response, "responses": {200: {"content": {kind: {}}}, **_refusals(404)}}
