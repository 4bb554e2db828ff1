"""What stands before a server of Tiled, and lets nothing out without the key."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, parse_qsl, quote, unquote, urlencode

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "tiled_api_key"
"""Where Tiled keeps the key of a browser."""

PAGES = "/beamtime/"
"""Where the pages for browsers are."""

# What a visitor without a key may see: that there is a server, and how to log in.
_OPEN = ("/healthz", "/favicon.ico", "/tiled-ui-settings", "/api/v1", "/api/v1/")
_OPEN_BELOW = ("/static/", "/ui/")
_READ_ONLY = ("GET", "HEAD", "OPTIONS")
# Reading with a list of fields too long for a URL, and handing over the key.
_HARMLESS_POSTS = (
    "/api/v1/table/",
    "/api/v1/container/full",
    "/api/v1/node/full",
    "/api/v1/awkward/",
    "/api/v1/auth/",
)


class Guard:
    """An ASGI application around another that checks every request.

    - Paths that climb (``..``), that hide a slash or a backslash, or that begin a
      second root (``//``), are answered with 400: Tiled's routes for its pages join
      paths as they come.
    - All but the start page of the API, the pages' scripts and ``/healthz`` want the
      key: Tiled's routes for Zarr do not ask for it.
    - Nothing can be changed: methods other than those for reading are refused.

    Parameters
    ----------
    app
        What is guarded.
    key
        The key; None if everybody may read, or if the application asks for names and
        passwords itself.
    read_only
        Refuse what would change something.
    """

    def __init__(self, app: App, *, key: str | None, read_only: bool = True) -> None:
        self.app = app
        self._key = key
        self._read_only = read_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None and self._has_key_in_page_address(scope):
            await _remember_key(scope, send, self._key or "")
        elif refusal is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await _answer(send, *refusal)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        raw = scope.get("raw_path") or scope["path"].encode()
        path = scope["path"]
        if climbs(raw.decode("latin-1")) or climbs(path):
            return 400, "This path is refused: it leads out of what is served."
        if self._read_only and scope["type"] == "http":
            method = scope["method"]
            harmless = method == "POST" and path.startswith(_HARMLESS_POSTS)
            if method not in _READ_ONLY and not harmless:
                return 405, "This server is read-only."
        if self._key is None or path in _OPEN or path.startswith(_OPEN_BELOW):
            return None
        if any(secrets.compare_digest(given, self._key) for given in _keys(scope)):
            return None
        return 401, (
            "This server wants its key: open the address that it printed when it "
            "started, or send the header 'Authorization: Apikey …'."
        )

    def _has_key_in_page_address(self, scope: Scope) -> bool:
        """Say whether a browser comes with the key for the first time."""
        return (
            self._key is not None
            and scope["type"] == "http"
            and scope["method"] == "GET"
            and scope["path"].startswith(PAGES)
            and b"api_key=" in scope.get("query_string", b"")
        )


async def _remember_key(scope: Scope, send: Send, key: str) -> None:
    """Move the key from the address to a cookie, lest it is shared with the address."""
    query = parse_qsl(scope["query_string"].decode("latin-1"))
    rest = urlencode([(name, value) for name, value in query if name != "api_key"])
    target = quote(scope["path"]) + (f"?{rest}" if rest else "")
    cookie = f"{COOKIE}={key}; Path=/; HttpOnly; SameSite=Lax; Max-Age=604800"
    headers = [
        (b"location", target.encode()),
        (b"set-cookie", cookie.encode()),
        (b"content-length", b"0"),
    ]
    await send({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def climbs(path: str) -> bool:
    """Say whether a path could lead out of the folder that it is joined to."""
    # Decoded again and again: what one layer has unpacked another might once more.
    for _ in range(4):
        if "\\" in path or "\0" in path or "//" in path:
            return True
        if any(part in (".", "..") for part in path.split("/")):
            return True
        decoded = unquote(path)
        if decoded == path:
            return False
        if decoded.count("/") != path.count("/"):
            return True
        path = decoded
    return True


def _keys(scope: Scope) -> list[str]:
    """Return what a request offers as keys, in ASCII."""
    found: list[str] = []
    for name, value in scope.get("headers", ()):
        text = value.decode("latin-1")
        if name == b"authorization":
            scheme, _, given = text.partition(" ")
            if scheme.lower() in ("apikey", "bearer"):
                found.append(given.strip())
        elif name == b"cookie":
            found += _cookies(text)
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
    found += query.get("api_key", [])
    return [key for key in found if key.isascii()]


def _cookies(text: str) -> list[str]:
    try:
        cookie = SimpleCookie(text)
    except CookieError:
        return []
    return [cookie[COOKIE].value] if COOKIE in cookie else []


async def _answer(send: Send, status: int, text: str) -> None:
    body = f'{{"detail":"{text}"}}'.encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    if status == 401:
        headers.append((b"www-authenticate", b"Apikey"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
