"""Who may ask the viewer for something, and what its pages may load: the checks around every request."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
ASKED_BY = "x-priorlens"
"""A header that changing requests must carry: another site's form cannot, and its script would have to ask first."""

_READING = ("GET", "HEAD")


class Guard:
    """Wraps an application: a request that is not of its own page is refused, and every answer carries `HEADERS`.

    A name in the Host header that is not this machine's is how a foreign page gets at a local server (DNS rebinding):
    it can make any name point here, but no number. So numbers are let in, and of names only `localhost` and `host`.

    host: what the server is bound to.
    """

    def __init__(self, inner: Application, *, host: str) -> None:
        self.inner = inner
        self.host = host

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.inner(scope, receive, send)
            return

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name.lower() for name, _ in message.get("headers", [])}
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in own]
                message = {**message, "headers": [*message.get("headers", []), *added]}
            await send(message)

        if why := self.why_not(scope):
            await _refuse(sealed, why)
            return
        await self.inner(scope, receive, sealed)

    def why_not(self, scope: Message) -> str:
        """Why a request is refused; empty where it is not."""
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_own(host):
            return "the Host header names another machine; open the address that priorlens view printed"
        if origin is not None and origin != f"{scope['scheme']}://{host}":
            return "the request comes from another page (Origin)"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and scope["path"] != "/":
            return "the request comes from another site"
        if scope["method"] not in _READING and headers.get(ASKED_BY) != "view":
            return f"the request does not come from the page; it must carry the header {ASKED_BY}: view"
        return ""

    def _is_own(self, host: str) -> bool:
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        name = name.removeprefix("[").removesuffix("]").lower()
        if name in ("localhost", self.host.lower()):
            return True
        try:
            number = ipaddress.ip_address(name)
        except ValueError:
            return False
        return number.is_loopback or not is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that is bound to `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _refuse(send: Send, why: str) -> None:
    body = json.dumps({"detail": why}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
