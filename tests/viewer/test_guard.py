"""Who is let in: the page itself, by a number or a name of this machine, and no other page that knows the port."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from asking import Answer, ask, strict

from priorlens.viewer.guard import ASKED_BY, HEADERS, POLICY, Guard, is_loopback

ASKED = (ASKED_BY, "view")


async def inner(scope: Any, receive: Any, send: Any) -> None:
    """Answers everything, with a policy of its own where it is asked for one."""
    own = [(b"Content-Security-Policy", b"own")] if scope["path"] == "/own" else []
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain"), *own]})
    await send({"type": "http.response.body", "body": b"inside"})


def answer(
    *headers: tuple[str, str], method: str = "GET", path: str = "/api/results", bound: str = "127.0.0.1"
) -> Answer:
    return ask(Guard(inner, host=bound), path, method=method, headers=headers)


def let_in(*headers: tuple[str, str], **options: str) -> bool:
    """Else it is refused in one line, and the application inside has seen nothing of it."""
    found = answer(*headers, **options)
    if found.status == 200:
        assert found.content == b"inside"
        return True
    told = strict(found.content)
    assert found.status == 403 and list(told) == ["detail"] and told["detail"] and "\n" not in told["detail"]
    assert found.headers["content-type"] == "application/json"
    assert int(found.headers["content-length"]) == len(found.content)
    return False


# --- Host


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.0.0.1:8642", "127.0.0.53:1", "localhost", "LocalHost:8642", "LOCALHOST"),
        *("[::1]", "[::1]:8642"),
    ],
)
def test_addresses_of_this_machine(host: str) -> None:
    assert let_in(("Host", host))


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8642", "127.0.0.1.evil.example", "localhost.evil.example", "evil-localhost"),
        *("localhost.", "127.0.0.1@evil.example", "evil.example#127.0.0.1", "127.0.0.1, evil.example"),
        *("192.168.1.5:8642", "0.0.0.0", "8.8.8.8", "[fe80::1]:8642", "[::]", "2130706433", "0x7f.1"),
        *("", ":8642", "[]", " ", "127.0.0.1:x", "127.0.0.1:", "\xe4"),
    ],
)
def test_addresses_of_other_machines(host: str) -> None:
    """A foreign page can make a name of its own point here, and then is of one origin with the server."""
    assert not let_in(("Host", host))


def test_without_a_host() -> None:
    assert not let_in()


@pytest.mark.parametrize("bound", ["0.0.0.0", "192.168.1.5", "::", "scanner-room.local"])
def test_a_server_that_is_bound_to_more_goes_by_numbers_and_its_own_name(bound: str) -> None:
    for host in ("192.168.1.5:8642", "127.0.0.1", "[fe80::1]:8642", "localhost:8642"):
        assert let_in(("Host", host), bound=bound)
    for host in ("evil.example", "other.local"):
        assert not let_in(("Host", host), bound=bound)


def test_the_name_that_it_is_bound_to() -> None:
    assert let_in(("Host", "Scanner-Room.local:8642"), bound="scanner-room.local")
    assert not let_in(("Host", "scanner-room.local"), bound="127.0.0.1")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *(("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True)),
        *(("0.0.0.0", False), ("::", False), ("192.168.1.5", False), ("myhost", False), ("", False)),
    ],
)
def test_who_is_reached_by_others(host: str, loopback: bool) -> None:
    assert is_loopback(host) == loopback


# --- Origin, Sec-Fetch-Site, X-Priorlens

OWN = ("Host", "127.0.0.1:8642")


@pytest.mark.parametrize(
    "origin",
    [
        *("http://evil.example", "null", "", "http://127.0.0.1", "http://127.0.0.1:8643", "https://127.0.0.1:8642"),
        *("http://localhost:8642", "127.0.0.1:8642", "http://127.0.0.1:8642.evil.example"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_another_page_s_origin(origin: str, method: str) -> None:
    assert not let_in(OWN, ASKED, ("Origin", origin), method=method)


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_the_page_s_own_origin(method: str) -> None:
    assert let_in(OWN, ASKED, ("Origin", "http://127.0.0.1:8642"), ("Sec-Fetch-Site", "same-origin"), method=method)


@pytest.mark.parametrize("site", ["cross-site", "same-site", "whatever", ""])
def test_another_site_may_link_to_the_page_and_load_nothing(site: str) -> None:
    assert not let_in(OWN, ("Sec-Fetch-Site", site))
    assert not let_in(OWN, ("Sec-Fetch-Site", site), path="/api/cases/1/layers/image.nii.gz")
    assert let_in(OWN, ("Sec-Fetch-Site", site), path="/")
    assert not let_in(OWN, ("Sec-Fetch-Site", site), path="/", method="POST")


@pytest.mark.parametrize("site", ["none", "same-origin"])
def test_an_address_that_someone_types(site: str) -> None:
    assert let_in(OWN, ("Sec-Fetch-Site", site))


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "get", "TRACE"])
@pytest.mark.parametrize("header", [(), ((ASKED_BY, ""),), ((ASKED_BY, "View"),), ((ASKED_BY, "view, view"),)])
def test_a_change_without_the_page_s_header(method: str, header: tuple[tuple[str, str], ...]) -> None:
    """A form of another site can send none, and its script would have to ask first."""
    assert not let_in(OWN, *header, method=method)
    assert let_in(OWN, ASKED, method=method)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_reading_needs_no_header(method: str) -> None:
    assert let_in(OWN, method=method)


# --- what every answer carries


def test_answers_and_refusals_carry_the_policy() -> None:
    for found in (answer(OWN), answer(("Host", "evil.example")), answer(OWN, method="POST")):
        assert {name: found.headers.get(name) for name in HEADERS} == HEADERS


def test_the_policy_lets_in_nothing_from_elsewhere() -> None:
    rules = dict(rule.strip().split(" ", 1) for rule in POLICY.split(";"))
    assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == "'self'", "no inline scripts, no eval"
    allowed = {"'none'", "'self'", "data:", "blob:"}
    assert {source for sources in rules.values() for source in sources.split()} <= allowed
    assert "access-control-allow-origin" not in HEADERS


def test_an_own_policy_stays_the_only_one(tmp_path: Path) -> None:
    found = answer(OWN, path="/own")
    assert found.headers["content-security-policy"] == "own"
    assert {name: found.headers.get(name) for name in HEADERS if name != "content-security-policy"} == {
        name: value for name, value in HEADERS.items() if name != "content-security-policy"
    }
