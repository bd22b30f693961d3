"""The viewer's server without a network: as its page asks it, and byte by byte as nothing well-meant would."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pretended_scoring
from starlette.testclient import TestClient

from priorlens.viewer.drops import Drops
from priorlens.viewer.guard import HEADERS, Application
from priorlens.viewer.scorer import Scorer
from priorlens.viewer.server import create_app
from priorlens.viewer.shelf import Shelf

PAGE = {"X-Priorlens": "view"}
"""What the page's own requests carry that change something."""

NAMES = ["good/<script>alert(1)</script>.png", "good/Änne.png", "lesion/o'neil & sons.png", "lesion/broken.png"]
PATIENTS = ["Müller^Änne", "<b>Bob</b>", "Müller^Änne", "Zoë"]
"""Of results, the last of which could not be scored."""

PNG = b"\x89PNG\r\n\x1a\n"
MOST = 1000
"""Bytes that are taken."""


@dataclass(frozen=True)
class Answer:
    """What came back. taken: parts of the body that were read before it."""

    status: int
    headers: dict[str, str]
    content: bytes
    taken: int


def shelf_of(*folders: Path, hide: bool = False) -> Shelf:
    shelf = Shelf(hide=hide)
    for folder in folders:
        shelf.add(folder)
    return shelf


def page(shelf: Shelf, drops: Drops | None = None, **options: Any) -> TestClient:
    """A browser with the page open; what goes wrong in the server is an answer, as it is for a browser."""
    app = create_app(shelf, drops, **options)
    return TestClient(app, base_url="http://127.0.0.1", headers=PAGE, raise_server_exceptions=False)


def strict(content: bytes | str) -> Any:
    """JSON as browsers read it, which know no NaN."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    return json.loads(content, parse_constant=refuse)


def texts(value: Any) -> Iterator[str]:
    """Every text in an answer, names of fields too."""
    match value:
        case dict():
            for name, one in value.items():
                yield str(name)
                yield from texts(one)
        case list():
            for one in value:
                yield from texts(one)
        case str():
            yield value


def ask(
    app: Application,
    path: str,
    *,
    method: str = "GET",
    headers: Sequence[tuple[str, str]] = (("host", "127.0.0.1"),),
    body: Iterable[bytes] = (b"",),
) -> Answer:
    """A request in just these words: nothing is added, and the path stays as it is."""
    parts, sent, taken = list(body), [], 0

    async def receive() -> dict[str, Any]:
        nonlocal taken
        if taken == len(parts):
            return {"type": "http.disconnect"}
        taken += 1
        return {"type": "http.request", "body": parts[taken - 1], "more_body": taken < len(parts)}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "scheme": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers],
    }
    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    found = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], found, b"".join(one.get("body", b"") for one in sent[1:]), taken)


def refusal(answer: Any, status: int, *says: str) -> str:
    """One line of JSON, with the policy."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    told = strict(answer.content)
    assert list(told) == ["detail"] and told["detail"].strip() and "\n" not in told["detail"], told
    for part in says:
        assert part in told["detail"], told
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
    return str(told["detail"])


def drops_beside(shelf: Shelf, folder: Path, of_scans: bool = False) -> Drops:
    scorer = Scorer(pretended_scoring.score)
    return Drops(folder / "kept", shelf, scorer, of_scans=of_scans, most_bytes=MOST)


def send(client: TestClient, number: int, name: str, content: Any = PNG, **headers: str) -> Any:
    return client.post(f"/api/drops/{number}/files", content=content, headers={"X-File-Name": name, **headers})


def finished(client: TestClient, number: int) -> dict[str, Any]:
    end = time.monotonic() + 60
    while True:
        told = strict(client.get(f"/api/drops/{number}").content)
        if told["state"] in ("done", "failed", "cancelled"):
            return dict(told)
        assert time.monotonic() < end, told
        time.sleep(0.01)


def kept(drops: Drops) -> list[str]:
    return sorted(path.name for path in drops.folder.rglob("*") if path.is_file())
