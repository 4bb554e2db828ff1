"""Without the key, not a byte; with it, nothing outside."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bluesky_beamtime.errors import ServingError
from bluesky_beamtime.serving.guard import COOKIE, Guard, climbs
from bluesky_beamtime.serving.server import BeamtimeServer, make_app
from bluesky_beamtime.storage import FrameStore

pytestmark = pytest.mark.filterwarnings("default")

KEY = "abc123"
# Stands in everything that was recorded here, and nowhere else.
SECRET = "unobtainium"


class Client:
    """Sends requests to an application, without a network."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def get(
        self, path: str, method: str = "GET", headers: Any = None, query: str = ""
    ) -> tuple[int, dict[str, str], bytes]:
        """Send a path exactly as it is written, which no client library would."""
        from urllib.parse import unquote

        answer: list[Any] = []

        asked = False

        async def receive() -> Any:
            nonlocal asked
            if asked:
                # A client that does not go away.
                await asyncio.Event().wait()
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            answer.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(b"host", b"beamtime"), *(headers or [])],
            "client": ("127.0.0.1", 1),
            "server": ("beamtime", 80),
        }
        asyncio.run(self._app(scope, receive, send))
        head = {k.decode(): v.decode() for k, v in answer[0]["headers"]}
        body = b"".join(message.get("body", b"") for message in answer[1:])
        return answer[0]["status"], head, body


@pytest.fixture
def app(lab: Any, path: Path) -> Iterator[Any]:
    from bluesky_beamtime.database.engine import Database

    lab.run(images=True, comment=SECRET)
    database = Database(path, mode="r")
    yield make_app([database], key=KEY)
    database.close()


@pytest.mark.parametrize(
    "address",
    [
        "/ui//etc/passwd",
        "/ui/../../etc/passwd",
        "/ui/..%2f..%2fetc%2fpasswd",
        "/ui/%2e%2e/%2e%2e/etc/passwd",
        "/ui/%252e%252e/etc/passwd",
        "/ui/%2fetc/passwd",
        "/ui/..\\..\\etc",
        "/ui/%5c..%5cetc",
        "//etc/passwd",
        "/static/../../../etc/passwd",
        "/ui/a%00b",
        "/beamtime/x/../../../etc",
    ],
)
def test_paths_that_climb_are_refused(app: Any, address: str) -> None:
    assert climbs(address)
    for headers in ([], [(b"authorization", f"Apikey {KEY}".encode())]):
        status, _, body = Client(app).get(address, headers=headers)
        assert status == 400
        assert b"root:" not in body


@pytest.mark.parametrize(
    "address", ["/", "/ui/browse/a..b/c", "/api/v1/x%20y", "/a.b/"]
)
def test_other_paths_are_not(address: str) -> None:
    assert not climbs(address)


def routes_of(app: Any) -> Iterator[str]:
    """Yield an address for every route of the application, whatever it is made of."""
    schema = app.app.openapi()
    yield from schema["paths"]
    for route in app.app.routes:
        found = getattr(route, "path", None)
        if found is not None:
            yield found
    yield from ("/openapi.json", "/docs", "/redoc", "/metrics", "/ui/browse/", "/ui/")
    yield from (f"/zarr/{version}/{file}" for version in ("v2", "v3") for file in _ZARR)
    yield from ("/beamtime/", "/beamtime/x/", "/beamtime/x/rows")


_ZARR = (
    "",
    ".zgroup",
    ".zarray",
    ".zattrs",
    "zarr.json",
    ".zmetadata",
    "c/0/0/0",
    "0.0",
)


def filled(path: str, uid: str) -> Iterator[str]:
    """Yield a route's address with each kind of thing in it that is there."""
    import re

    if "{" not in path:
        yield path
        return
    for value in (
        uid,
        f"{uid}/primary",
        f"{uid}/primary/image",
        f"{uid}/primary/internal",
    ):
        yield re.sub(r"\{[^}]*\}", value, path)


def test_no_route_gives_a_byte_of_data_without_the_key(app: Any, lab: Any) -> None:
    (uid,) = lab.emitted
    client = Client(app)
    seen = 0
    for route in set(routes_of(app)):
        for path in filled(route, uid):
            for method in ("GET", "POST"):
                status, _, body = client.get(path, method=method)
                seen += 1
                assert SECRET.encode() not in body, path
                assert uid.encode() not in body, path
                if not path.startswith(("/ui", "/static")):
                    small = status in (401, 400, 404, 405) or path in (
                        "/healthz",
                        "/favicon.ico",
                        "/tiled-ui-settings",
                        "/api/v1/",
                    )
                    assert small, (method, path, status)
    assert seen > 200


def test_the_crawl_finds_data_with_the_key(app: Any, lab: Any) -> None:
    """Keeps the test above able to fail."""
    (uid,) = lab.emitted
    client = Client(app)
    for headers, query in (
        ([(b"authorization", f"Apikey {KEY}".encode())], ""),
        ([(b"cookie", f"{COOKIE}={KEY}".encode())], ""),
        ([], f"api_key={KEY}"),
    ):
        status, _, body = client.get(
            f"/api/v1/metadata/{uid}", headers=headers, query=query
        )
        assert status == 200
        assert SECRET.encode() in body


@pytest.mark.parametrize(
    "given",
    [
        [(b"authorization", b"Apikey wrong")],
        [(b"authorization", b"Apikey")],
        [(b"authorization", "Apikey ä".encode("latin-1"))],
        [(b"cookie", f"{COOKIE}=wrong".encode())],
        [(b"cookie", b"\xff=;;")],
    ],
)
def test_wrong_keys_open_nothing(app: Any, given: Any) -> None:
    status, head, _ = Client(app).get("/api/v1/search/", headers=given)
    assert status == 401
    assert "Apikey" in head["www-authenticate"]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "POST"])
def test_nothing_can_be_changed(app: Any, lab: Any, method: str) -> None:
    (uid,) = lab.emitted
    headers = [(b"authorization", f"Apikey {KEY}".encode())]
    for route in ("metadata", "array/full", "register", "data_source", "revisions"):
        status, _, _ = Client(app).get(f"/api/v1/{route}/{uid}", method, headers)
        assert status == 405


def test_a_key_in_the_address_of_a_page_becomes_a_cookie(app: Any) -> None:
    status, head, _ = Client(app).get("/beamtime/x/", query=f"before=5&api_key={KEY}")
    assert status == 303
    assert head["location"] == "/beamtime/x/?before=5"
    assert f"{COOKIE}={KEY}" in head["set-cookie"]
    assert "HttpOnly" in head["set-cookie"]


def test_a_wrong_key_in_the_address_becomes_nothing(app: Any) -> None:
    status, head, _ = Client(app).get("/beamtime/x/", query="api_key=wrong")
    assert status == 401
    assert "set-cookie" not in head


def test_websockets_want_the_key_too(app: Any) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "websocket",
        "path": "/api/v1/stream/single/x",
        "raw_path": b"/api/v1/stream/single/x",
        "headers": [],
        "query_string": b"",
    }
    asyncio.run(app(scope, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_a_key_that_a_url_would_mangle_is_refused() -> None:
    with pytest.raises(ServingError, match="letters and digits"):
        make_app([], key="a&b")


def test_an_address_of_another_machine_is_named(lab: Any, path: Path) -> None:
    # An address for documentation, which no machine has.
    with pytest.raises(ServingError, match="--host takes an address of this machine"):
        BeamtimeServer([path], host="203.0.113.7", port=0)


def test_an_address_in_use_is_named(lab: Any, path: Path) -> None:
    lab.run()
    first = BeamtimeServer([path], port=0)
    try:
        with pytest.raises(ServingError, match=rf"127.0.0.1:{first.port}.*--port"):
            BeamtimeServer([path], port=first.port)
    finally:
        first.close()


def test_a_public_server_asks_nobody(lab: Any, path: Path) -> None:
    from bluesky_beamtime.database.engine import Database

    lab.run(comment=SECRET)
    database = Database(path, mode="r")
    client = Client(make_app([database], key=None, public=True))
    status, _, body = client.get(f"/api/v1/metadata/{next(iter(lab.emitted))}")
    assert status == 200
    assert SECRET.encode() in body
    assert client.get("/ui//etc/passwd")[0] == 400
    database.close()


def test_files_outside_are_served_from_named_folders_only(
    lab: Any, path: Path, tmp_path: Path
) -> None:
    import event_model
    import numpy as np

    from bluesky_beamtime.database.engine import Database
    from bluesky_beamtime.database.journaled import JournalIndex
    from bluesky_beamtime.database.runs import Run
    from bluesky_beamtime.errors import StoreReadError

    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    store = FrameStore(outside)
    with store.attach("cam", shape=(2, 2), dtype=np.dtype("<u2")) as sink:
        sink.write(np.ones((2, 2), "<u2"))
        uri = sink.uri
    composed = event_model.compose_run(metadata={"plan_name": "p", "scan_id": 1})
    lab.beamtime("start", composed.start_doc)
    stream = composed.compose_descriptor(
        name="primary",
        data_keys={
            "cam": {
                "source": "s",
                "dtype": "array",
                "shape": [2, 2],
                "dtype_numpy": "<u2",
                "external": "STREAM:",
            }
        },
        hints={},
        configuration={},
        object_keys={"cam": ["cam"]},
    )
    lab.beamtime("descriptor", stream.descriptor_doc)
    resource = composed.compose_stream_resource(
        mimetype="application/x-zarr",
        uri=uri,
        data_key="cam",
        parameters={"chunk_shape": [1, 2, 2]},
    )
    lab.beamtime("stream_resource", resource.stream_resource_doc)
    lab.beamtime(
        "stream_datum",
        resource.compose_stream_datum(
            {"start": 0, "stop": 1},
            {"start": 1, "stop": 2},
            stream.descriptor_doc,
        ),
    )
    lab.beamtime("stop", composed.compose_stop())
    database = Database(path, mode="r")
    run = Run(database, composed.start_doc["uid"], JournalIndex(database.journal))
    assert run.primary.read()["cam"].values.tolist() == [[[1, 1], [1, 1]]]
    database.readable = [database.folder]
    with pytest.raises(StoreReadError, match="--readable"):
        run.primary.read(["cam"])
    # A link is no way around it.
    link = path.parent / "x.zarr" / "link"
    link.symlink_to(outside)
    database.readable = [database.folder, outside.resolve()]
    assert run.primary.read(["cam"])["cam"].values.sum() == 4
    database.close()


def test_a_guard_can_stand_before_any_application() -> None:
    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"inner"})

    client = Client(Guard(inner, key=None, read_only=False))
    assert client.get("/anything", "DELETE")[2] == b"inner"
    assert client.get("/a/../b")[0] == 400


@pytest.mark.parametrize(
    ("address", "query", "expected"),
    [
        ("/api/v1/search/", "sort=beamtime.sample", 400),
        ("/api/v1/search/", 'sort=a"b', 422),
        ("/api/v1/search/", f"page[cursor]={2**63}", 200),
        ("/api/v1/search/", f"page[offset]={10**30}", 200),
        ("/api/v1/search/", f"page[offset]={10**30}&sort=plan_name", 200),
        ("/api/v1/search/", f"page[offset]={10**30}&fields=", 200),
        ("/api/v1/search/UID", f"page[offset]={10**30}", 200),
        ("/beamtime/x/", f"before={2**70}", 200),
        ("/beamtime/x/", f"before={-(2**70)}", 200),
        ("/beamtime/x/UID/primary/frame.png", f"field=image&row={2**70}", 404),
        ("/api/v1/array/full/UID/primary/image", "slice=::0", 400),
        ("/api/v1/array/full/UID/primary/image", "slice=9", 400),
        ("/api/v1/array/full/UID/primary/internal/x", "slice=::0", 400),
    ],
)
def test_questions_that_make_no_sense_are_no_errors_of_the_server(
    app: Any, lab: Any, address: str, query: str, expected: int
) -> None:
    (uid,) = lab.emitted
    headers = [(b"authorization", f"Apikey {KEY}".encode())]
    address = address.replace("UID", uid)
    status, _, body = Client(app).get(address, headers=headers, query=query)
    assert status == expected, body
