"""Files that are given to the server: what it takes, what it refuses, and that it keeps nothing of that."""

from __future__ import annotations

import asyncio
import gzip
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from asking import MOST, PAGE, PNG, ask, drops_beside, finished, kept, page, refusal, send, shelf_of, strict
from starlette.testclient import TestClient

from priorlens.viewer.drops import Drops
from priorlens.viewer.guard import HEADERS
from priorlens.viewer.server import create_app


def test_without_a_model_nothing_is_taken(client: TestClient) -> None:
    refusal(client.post("/api/drops"), 409, "--model")
    refusal(send(client, 1, "a.png"), 404)
    refusal(client.post("/api/drops/1/start"), 404)
    refusal(client.delete("/api/drops/1"), 404)


def test_a_drop_from_its_beginning_to_its_end(giving: TestClient, drops: Drops) -> None:
    begun = giving.post("/api/drops")
    receiving = {"drop": 1, "state": "receiving", "done": 0, "total": 0, "words": "receiving files", "cases": []}
    assert (begun.status_code, strict(begun.content)) == (201, receiving)
    answer = send(giving, 1, quote("Süd/broken.png"))
    assert (answer.status_code, answer.content) == (204, b"")
    assert kept(drops) == ["broken.png"] and strict(giving.get("/api/drops/1").content) == receiving
    started = giving.post("/api/drops/1/start")
    assert started.status_code == 202 and started.json()["state"] in ("waiting", "scoring", "failed")
    told = finished(giving, 1)
    assert (told["state"], told["words"]) == ("failed", "Süd/broken.png: is empty; export it again")
    refusal(giving.post("/api/drops/1/start"), 422, "drop them again")
    refusal(send(giving, 1, "b.png"), 415, "no more files")
    assert giving.post("/api/drops").json()["drop"] == 2


def test_what_can_be_dropped_is_told(giving: TestClient) -> None:
    scoring = giving.get("/api/results").json()["scoring"]
    assert scoring["possible"] and scoring["why_not"] == "" and scoring["most_bytes"] == MOST
    assert ".png" in scoring["suffixes"] and ".nii.gz" not in scoring["suffixes"]


def test_cancelled(giving: TestClient, drops: Drops) -> None:
    giving.post("/api/drops")
    send(giving, 1, "stays.png")
    giving.post("/api/drops/1/start")
    end = time.monotonic() + 60
    while giving.get("/api/drops/1").json()["done"] == 0:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert giving.get("/api/drops/1").json()["words"] == "1 of 3 images scored"
    assert giving.delete("/api/drops/1").status_code == 204
    assert giving.get("/api/drops/1").json()["state"] == "cancelled"
    assert giving.delete("/api/drops/1").status_code == 204, "once more does no harm"


@pytest.mark.parametrize("size", [MOST + 1, 10 * MOST])
def test_too_large_by_what_it_says(drops: Drops, size: int) -> None:
    """Refused before a byte of it is read."""
    app = create_app(drops.shelf, drops)
    drops.new()
    headers = [("host", "127.0.0.1"), *PAGE.items(), ("x-file-name", "a.png"), ("content-length", str(size))]
    found = ask(app, "/api/drops/1/files", method="POST", headers=headers, body=[PNG + bytes(size - 8)])
    assert found.status == 413 and found.taken == 0 and kept(drops) == []
    assert drops.room(1) == MOST


@pytest.mark.parametrize("length", [[], [("content-length", "8")], [("content-length", "x")]])
def test_too_large_whatever_it_says(drops: Drops, length: list[tuple[str, str]]) -> None:
    """Never more of it is read than there is room for, and nothing is kept."""
    app = create_app(drops.shelf, drops)
    drops.new()
    headers = [("host", "127.0.0.1"), *PAGE.items(), ("x-file-name", "a.png"), *length]
    body = [PNG, *[bytes(300)] * 50]
    found = ask(app, "/api/drops/1/files", method="POST", headers=headers, body=body)
    assert found.status == 413 and "give fewer" in strict(found.content)["detail"]
    assert found.taken == 5 and kept(drops) == [] and drops.room(1) == MOST
    assert {name: found.headers.get(name) for name in HEADERS} == HEADERS


def test_too_large_together(giving: TestClient, drops: Drops) -> None:
    giving.post("/api/drops")
    assert send(giving, 1, "a.png", PNG + bytes(MOST // 2 - 8)).status_code == 204
    assert send(giving, 1, "b.png", PNG + bytes(MOST // 2 - 8)).status_code == 204, "just as much as fits"
    refusal(send(giving, 1, "c.png", PNG), 413)
    refusal(send(giving, 1, "c.png", iter([PNG])), 413)
    assert kept(drops) == ["a.png", "b.png"]


def test_a_file_that_does_not_arrive_whole(drops: Drops) -> None:
    """Whoever goes away in the middle leaves nothing behind."""
    app = create_app(drops.shelf, drops)
    drops.new()
    headers = [("host", "127.0.0.1"), *PAGE.items(), ("x-file-name", "a.png")]

    found = ask_and_leave(app, headers, [PNG, bytes(100)])
    assert found == 400 and kept(drops) == [] and drops.room(1) == MOST


def ask_and_leave(app: Any, headers: list[tuple[str, str]], parts: list[bytes]) -> int:
    sent: list[Any] = []
    waiting = [{"type": "http.request", "body": part, "more_body": True} for part in parts]

    async def receive() -> Any:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send_back(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "http_version": "1.1", "scheme": "http", "method": "POST", "path": "/api/drops/1/files"}
    scope |= {"raw_path": b"", "query_string": b"", "root_path": ""}
    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    asyncio.run(app({**scope, "headers": raw}, receive, send_back))
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    ("name", "lands"),
    [
        ("../../../etc/passwd.png", "etc/passwd.png"),
        ("..%2f..%2fa.png", "a.png"),
        ("%2Fetc%2Fa.png", "etc/a.png"),
        ("..%5C..%5Ca.png", "a.png"),
        (".hidden.png", "hidden.png"),
        ("a%00.png", "a_.png"),
        ("%F0%9D%94%9E" * 200 + ".png", "𝔞" * 29 + ".png"),
        ("<script>.png", "_script_.png"),
    ],
)
def test_names_of_files_stay_in_their_folder(giving: TestClient, drops: Drops, name: str, lands: str) -> None:
    giving.post("/api/drops")
    assert send(giving, 1, name).status_code == 204
    files = drops.folder / "drop-1/files"
    assert [str(path.relative_to(files)) for path in drops.folder.rglob("*") if path.is_file()] == [lands]


@pytest.mark.parametrize("name", ["", ".", "..", "%2e%2e%2f", "/", "%20"])
def test_files_without_a_name(giving: TestClient, drops: Drops, name: str) -> None:
    giving.post("/api/drops")
    refusal(send(giving, 1, name), 415, "has no name")
    assert kept(drops) == []


def test_the_header_with_the_name_is_missing(giving: TestClient) -> None:
    giving.post("/api/drops")
    refusal(giving.post("/api/drops/1/files", content=PNG), 422, "x-file-name")


def test_a_name_that_is_a_folder_of_another(giving: TestClient, drops: Drops) -> None:
    giving.post("/api/drops")
    assert send(giving, 1, "a.png").status_code == 204
    detail = refusal(send(giving, 1, "a.png/b.png"), 507, "another name")
    assert str(drops.folder) not in detail and kept(drops) == ["a.png"]
    assert send(giving, 1, "b.png").status_code == 204


def test_equal_names_are_two_files(giving: TestClient, drops: Drops) -> None:
    giving.post("/api/drops")
    for _ in range(3):
        assert send(giving, 1, "a.png").status_code == 204
    assert kept(drops) == ["2-a.png", "3-a.png", "a.png"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.png", b""),
        ("a.png", b"<html><script>alert(1)</script>"),
        ("a.png", b"#!/bin/sh"),
        ("a.html", PNG),
        ("a.svg", b"<svg/>"),
        ("a.py", b"import os"),
        ("a", PNG),
        ("a.nii.gz", gzip.compress(b"x", mtime=0)),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_what_is_no_image(giving: TestClient, drops: Drops, name: str, content: bytes, streamed: bool) -> None:
    giving.post("/api/drops")
    refusal(send(giving, 1, name, iter([content]) if streamed else content), 415, name)
    assert kept(drops) == [] and drops.room(1) == MOST
    refusal(giving.post("/api/drops/1/start"), 422, "nothing to score")


def test_a_first_part_too_short_to_tell_by(giving: TestClient, drops: Drops) -> None:
    """An image in parts of one byte is one; what is none is refused as soon as it can be told."""
    giving.post("/api/drops")
    assert send(giving, 1, "a.png", iter([bytes([byte]) for byte in PNG + bytes(600)])).status_code == 204
    assert (drops.folder / "drop-1/files/a.png").read_bytes() == PNG + bytes(600)
    app = create_app(drops.shelf, drops)
    drops.new()
    headers = [("host", "127.0.0.1"), *PAGE.items(), ("x-file-name", "b.png")]
    found = ask(app, "/api/drops/2/files", method="POST", headers=headers, body=[b"no"] * 400)
    assert found.status == 415 and found.taken == 270, "540 bytes are enough"


def test_scans_are_taken_where_the_model_takes_them(tmp_path: Path, folder: Path) -> None:
    drops = drops_beside(shelf_of(folder), tmp_path, of_scans=True)
    client = page(drops.shelf, drops)
    client.post("/api/drops")
    assert send(client, 1, "s/a.nii.gz", gzip.compress(b"x")).status_code == 204
    assert send(client, 1, "s/IM0001", bytes(128) + b"DICM").status_code == 204
    refusal(send(client, 1, "a.png"), 415, "is not one of", "DICOM")
    refusal(send(client, 1, "IM0002", bytes(200)), 415)
    assert ".nii.gz" in client.get("/api/results").json()["scoring"]["suffixes"]
    assert kept(drops) == ["IM0001", "a.nii.gz"]
    drops.close()


def test_what_is_sent_is_what_is_scored(giving: TestClient, drops: Drops) -> None:
    content = PNG + np.random.default_rng(0).bytes(MOST - 8)
    giving.post("/api/drops")
    assert send(giving, 1, "a.png", content).status_code == 204
    assert (drops.folder / "drop-1/files/a.png").read_bytes() == content
