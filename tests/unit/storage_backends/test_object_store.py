"""Object stores against a real S3 server, and against servers that fail."""

from __future__ import annotations

import pickle
import socket
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest

from bluesky_beamtime.errors import (
    BackendError,
    KeyNotFoundError,
    StorageError,
)
from bluesky_beamtime.storage.backends import (
    ObjectStoreBackend,
    StorageBackend,
    get_size,
    object_store,
    open_backend,
    put_file,
)
from bluesky_beamtime.storage.backends.contract import fill
from bluesky_beamtime.storage.backends.s3_server import (
    S3TestServer,
)

pytest.importorskip("obstore", reason="the extra s3 is not installed")

QUICK: dict[str, Any] = {
    "client_options": {"connect_timeout": "1s", "timeout": "1s"},
    "retry_config": {"max_retries": 1, "retry_timeout": timedelta(seconds=1)},
}


def uses(backend: StorageBackend) -> list[Callable[[], object]]:
    """Every call that asks a server."""
    return [
        lambda: backend.put_bytes("a", b"1"),
        lambda: backend.get_bytes("a"),
        lambda: backend.get_range("a", 0, 1),
        lambda: get_size(backend, "a"),
        lambda: backend.exists("a"),
        lambda: backend.delete("a"),
        lambda: backend.delete_prefix("a"),
        lambda: list(backend.list_prefix("a")),
        lambda: list(backend.list_prefix("", recursive=True)),
    ]


def check_no_absence(backend: StorageBackend, text: str = "://") -> None:
    for use in uses(backend):
        with pytest.raises(BackendError, match=text) as caught:
            use()
        assert not isinstance(caught.value, KeyError)


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("s3://b", "s3://b"),
        ("S3://b/", "s3://b"),
        ("s3a://b/a b/é/", "s3://b/a%20b/%C3%A9"),
        ("s3://b/a%20b/%3F%23%25", "s3://b/a%20b/%3F%23%25"),
        ("gcs://b/c", "gs://b/c"),
        ("gs://b/c", "gs://b/c"),
        ("azure://box/c", "az://box/c"),
        ("az://box/c/", "az://box/c"),
    ],
)
def test_urls_are_canonical(url: str, canonical: str) -> None:
    options = {"account_name": "test"} if url.startswith("az") else {}
    backend = open_backend(url, **options)
    assert backend.url == canonical
    assert open_backend(canonical, **options).url == canonical
    backend.close()
    assert backend.url == canonical


def test_options_never_show() -> None:
    secret = "very-hidden"
    backend = open_backend("s3://b/p", access_key_id="k", secret_access_key=secret)
    assert secret not in repr(backend) + backend.url
    with pytest.raises(TypeError, match="no such option"):
        open_backend("s3://b", unheard_of=1)


def test_a_missing_bucket_is_no_missing_key(s3_server: S3TestServer) -> None:
    backend = open_backend("s3://never-made/p", **s3_server.options)
    check_no_absence(backend)
    with pytest.raises(BackendError, match="'never-made', the bucket of"):
        backend.get_bytes("a")
    with pytest.raises(BackendError, match="'never-made', the bucket of"):
        backend.put_bytes("a", b"")


def test_the_bucket_is_looked_for_only_once(
    s3: ObjectStoreBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[object] = []
    really = s3._obstore.list

    def note(*args: object, **kwargs: object) -> object:
        listed.append(args)
        return really(*args, **kwargs)

    monkeypatch.setattr(s3._obstore, "list", note)
    for key in ("a", "b", "c"):
        assert not s3.exists(key)
    assert len(listed) == 1


def test_a_refused_connection_fails_soon() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    backend = open_backend(
        "s3://bucket",
        endpoint=f"http://127.0.0.1:{port}",
        access_key_id="a",
        secret_access_key="b",
    )
    for use in uses(backend)[:2]:
        start = time.monotonic()
        with pytest.raises(BackendError, match=r"127\.0\.0\.1"):
            use()
        # The defaults: four tries within some two seconds.
        assert time.monotonic() - start < 10


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_no_server_is_no_absence(scheme: str) -> None:
    endpoint = "http://127.0.0.1:9"
    options: dict[str, Any] = {
        "s3": {"endpoint": endpoint, "access_key_id": "a", "secret_access_key": "b"},
        "gs": {"base_url": endpoint, "skip_signature": True},
        "az": {"account_name": "a", "account_key": "Yg==", "endpoint": endpoint},
    }[scheme]
    check_no_absence(open_backend(f"{scheme}://bucket/p", **options, **QUICK))


def test_a_silent_server_fails_within_its_limits(
    s3_server: S3TestServer, bucket: str
) -> None:
    backend = open_backend(bucket, **s3_server.options, **QUICK)
    backend.put_bytes("a", b"1")
    s3_server.pause()
    try:
        for use in uses(backend)[:3]:
            start = time.monotonic()
            with pytest.raises(BackendError):
                use()
            assert time.monotonic() - start < 10
    finally:
        s3_server.resume()
    assert backend.get_bytes("a") == b"1"


class Answers:
    """A server that answers everything with one status, but for some paths."""

    def __init__(self, status: int, paths: dict[str, int]) -> None:
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
        from threading import Thread

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(paths.get(self.path, status))
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def answer() -> Iterator[Callable[..., str]]:
    servers: list[Answers] = []

    def start(status: int, paths: dict[str, int] | None = None) -> str:
        servers.append(Answers(status, paths or {}))
        return f"http://127.0.0.1:{servers[-1].server.server_port}"

    yield start
    for server in servers:
        server.close()


@pytest.mark.parametrize("status", [401, 403, 400, 409, 500, 503])
def test_a_refusal_is_no_absence(
    answer: Callable[..., str], status: int, tmp_path: Any
) -> None:
    backend = open_backend(
        "s3://bucket/p",
        endpoint=answer(status),
        access_key_id="a",
        secret_access_key="b",
        **QUICK,
    )
    check_no_absence(backend)
    if status in (401, 403):
        with pytest.raises(BackendError, match="access denied"):
            backend.get_bytes("a")
    (tmp_path / "f").write_bytes(b"1")
    with pytest.raises(BackendError):
        put_file(backend, "a", tmp_path / "f")


def test_absence_that_may_not_be_listed(answer: Callable[..., str]) -> None:
    # Who may read but not list is told "not found" of a key, "denied" of the bucket.
    backend = open_backend(
        "s3://bucket",
        endpoint=answer(404, {"/bucket?list-type=2": 403}),
        access_key_id="a",
        secret_access_key="b",
        **QUICK,
    )
    with pytest.raises(KeyNotFoundError):
        backend.get_bytes("a")
    assert not backend.exists("a")
    with pytest.raises(BackendError, match="403"):
        list(backend.list_prefix("", recursive=True))


def test_a_bucket_that_cannot_be_looked_for(answer: Callable[..., str]) -> None:
    backend = open_backend(
        "s3://bucket",
        endpoint=answer(404, {"/bucket?list-type=2": 500}),
        access_key_id="a",
        secret_access_key="b",
        **QUICK,
    )
    with pytest.raises(BackendError, match="'bucket', the bucket"):
        backend.get_bytes("a")


def test_markers_of_consoles_are_no_values(
    s3: StorageBackend, s3_server: S3TestServer
) -> None:
    fill(s3, ("dir/x", "real-empty"))
    s3.put_bytes("real-empty", b"")
    bucket = s3.url.removeprefix("s3://")
    for marker in ("dir/", "alone/"):
        request = Request(
            f"{s3_server.endpoint}/{bucket}/{marker}", data=b"", method="PUT"
        )
        urlopen(request, timeout=30).close()
    assert list(s3.list_prefix("", recursive=True)) == ["dir/x", "real-empty"]
    assert list(s3.list_prefix("dir", recursive=True)) == ["dir/x"]
    assert list(s3.list_prefix("dir")) == ["dir/x"]
    assert not s3.exists("dir")


def test_listings_of_many_pages_are_lazy(
    s3: ObjectStoreBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "_PAGE", 10)
    keys = [f"n/{number:04}" for number in range(35)]
    fill(s3, keys)
    pages: list[int] = []
    really = s3._pages

    def note(prefix: str) -> Iterator[list[str]]:
        for page in really(prefix):
            pages.append(len(page))
            yield page

    s3._pages = note  # type: ignore[method-assign]
    listing = s3.list_prefix("n", recursive=True)
    assert next(listing) == "n/0000"
    assert pages == [10]
    assert ["n/0000", *listing] == keys
    assert list(s3.list_prefix("n")) == keys
    s3.delete_prefix("n")
    assert list(s3.list_prefix("", recursive=True)) == []


def test_a_directory_bucket_is_sorted_here() -> None:
    backend = ObjectStoreBackend("s3://fast--use1-az4--x-s3", region="us-east-1")
    backend._pages = lambda prefix: iter([["b", "d"], ["a"], ["c"]])  # type: ignore[method-assign]
    assert list(backend.list_prefix("", recursive=True)) == ["a", "b", "c", "d"]


def test_files_go_up_in_parts(s3: StorageBackend, tmp_path: Any) -> None:
    data = np.random.default_rng(0).bytes(12 << 20)
    source = tmp_path / "shard"
    source.write_bytes(data)
    assert put_file(s3, "whole", source) == len(data)
    assert s3.get_bytes("whole") == data
    assert put_file(s3, "part", source, 7 << 20) == 7 << 20
    assert s3.get_bytes("part") == data[: 7 << 20]
    assert put_file(s3, "small", source, 10) == 10
    assert s3.get_bytes("small") == data[:10]
    with pytest.raises(StorageError, match="No such file"):
        put_file(s3, "none", tmp_path / "none")


def test_the_endpoint_may_come_from_the_environment(
    s3_server: S3TestServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with open_backend(bucket) as backend:
        backend.put_bytes("a", b"1")
        assert backend.get_bytes("a") == b"1"


def test_it_goes_to_another_process_with_its_options(s3: StorageBackend) -> None:
    s3.put_bytes("a", b"1")
    other = pickle.loads(pickle.dumps(s3))
    assert other.url == s3.url
    assert other.get_bytes("a") == b"1"


def test_a_server_that_cannot_start_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(BackendError, match="did not start"):
        S3TestServer().start()
