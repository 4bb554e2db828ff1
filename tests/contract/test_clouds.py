"""The contract over Google's and Azure's protocols.

No server for these comes from PyPI, so the two here were written for the test, from the
protocols' documentation: Cloud Storage's XML API and Azure's Blob service, as far as a
client uses them. What they share is a table of objects; what differs is what obstore's
``GCSStore`` and ``AzureStore`` send. S3 is tested against moto.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

from bluesky_beamtime.storage.backends import StorageBackend, open_backend
from bluesky_beamtime.storage.backends.contract import StorageBackendContract

pytest.importorskip("obstore", reason="the extra s3 is not installed")

MODIFIED = "Sat, 21 Nov 2026 00:00:00 GMT"


class Cloud(ThreadingHTTPServer):
    """One bucket or container, in memory."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, bytes] = {}
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self.thread.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self.thread.join()


class Protocol(BaseHTTPRequestHandler):
    """What both protocols have in common."""

    server: Cloud
    protocol_version = "HTTP/1.1"
    root = ""

    def log_message(self, format: str, *args: object) -> None:
        pass

    def parse(self) -> tuple[str, dict[str, str], bytes]:
        """Return key, query and body; the key of the bucket itself is empty."""
        url = urlsplit(self.path)
        query = {name: v[0] for name, v in parse_qs(url.query, True).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(url.path).removeprefix(self.root)
        return path.lstrip("/"), query, body

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        if "Content_Length" not in headers:
            headers["Content_Length"] = str(len(body))
        sent = {"Last_Modified": MODIFIED, "ETag": '"1"', **headers}
        for name, value in sent.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_object(self, key: str) -> None:
        with self.server.lock:
            value = self.server.objects.get(key)
        if value is None:
            self.answer(404)
            return
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if self.command == "HEAD" or found is None:
            self.answer(200, value, Content_Length=str(len(value)))
            return
        start = int(found[1])
        end = min(int(found[2] or len(value)), len(value) - 1)
        if start >= len(value):
            self.answer(416)
            return
        span = f"bytes {start}-{end}/{len(value)}"
        self.answer(206, value[start : end + 1], Content_Range=span)

    def listing(self, query: dict[str, str]) -> tuple[list[str], list[str]]:
        """Return keys and common prefixes."""
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        keys: list[str] = []
        common: list[str] = []
        with self.server.lock:
            for key in sorted(self.server.objects):
                if not key.startswith(prefix):
                    continue
                head, found, _ = key[len(prefix) :].partition(delimiter or "\0")
                if delimiter and found:
                    common.append(prefix + head + found)
                else:
                    keys.append(key)
        return keys, sorted(set(common))

    def size(self, key: str) -> int:
        return len(self.server.objects.get(key, b""))

    def remove(self, key: str) -> bool:
        with self.server.lock:
            return self.server.objects.pop(key, None) is not None

    def store(self, key: str, body: bytes) -> None:
        with self.server.lock:
            self.server.objects[key] = body

    def do_HEAD(self) -> None:
        self.send_object(self.parse()[0])


class Google(Protocol):
    """https://cloud.google.com/storage/docs/xml-api/reference-methods"""

    root = "/bucket"

    def do_GET(self) -> None:
        key, query, _ = self.parse()
        if key:
            self.send_object(key)
            return
        keys, common = self.listing(query)
        found = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{self.size(key)}</Size>"
            "<LastModified>2026-11-21T00:00:00Z</LastModified><ETag>1</ETag></Contents>"
            for key in keys
        ) + "".join(
            f"<CommonPrefixes><Prefix>{escape(prefix)}</Prefix></CommonPrefixes>"
            for prefix in common
        )
        self.answer(200, f"<ListBucketResult>{found}</ListBucketResult>".encode())

    def do_PUT(self) -> None:
        key, query, body = self.parse()
        if "partNumber" in query:
            self.server.parts[f"{query['uploadId']} {query['partNumber']}"] = body
        else:
            self.store(key, body)
        self.answer(200)

    def do_POST(self) -> None:
        key, query, body = self.parse()
        if "uploads" in query:
            name = f"<UploadId>{len(self.server.parts)}-{escape(key)}</UploadId>"
            reply = (
                f"<InitiateMultipartUploadResult>{name}</InitiateMultipartUploadResult>"
            )
        else:
            numbers = re.findall(rb"<PartNumber>(\d+)</PartNumber>", body)
            parts = (f"{query['uploadId']} {int(number)}" for number in numbers)
            self.store(key, b"".join(self.server.parts[part] for part in parts))
            reply = (
                "<CompleteMultipartUploadResult><ETag>1</ETag>"
                "</CompleteMultipartUploadResult>"
            )
        self.answer(200, reply.encode())

    def do_DELETE(self) -> None:
        key, query, _ = self.parse()
        # An upload that is given up leaves the object as it was.
        there = "uploadId" in query or self.remove(key)
        self.answer(204 if there else 404)


class Azure(Protocol):
    """https://learn.microsoft.com/en-us/rest/api/storageservices/blob-service-rest-api"""

    root = "/box"

    def do_GET(self) -> None:
        key, query, _ = self.parse()
        if key:
            self.send_object(key)
            return
        keys, common = self.listing(query)
        found = "".join(
            f"<Blob><Name>{escape(key)}</Name><Properties>"
            f"<Last-Modified>{MODIFIED}</Last-Modified><Etag>1</Etag>"
            f"<Content-Length>{self.size(key)}</Content-Length>"
            "<Content-Type>application/octet-stream</Content-Type>"
            "</Properties></Blob>"
            for key in keys
        ) + "".join(
            f"<BlobPrefix><Name>{escape(prefix)}</Name></BlobPrefix>"
            for prefix in common
        )
        body = f"<EnumerationResults><Blobs>{found}</Blobs></EnumerationResults>"
        self.answer(200, body.encode())

    def do_PUT(self) -> None:
        key, query, body = self.parse()
        if query.get("comp") == "block":
            self.server.parts[f"{key} {query['blockid']}"] = body
        elif query.get("comp") == "blocklist":
            ids = re.findall(r"<(?:Uncommitted|Latest)>(.*?)</", body.decode())
            self.store(key, b"".join(self.server.parts[f"{key} {i}"] for i in ids))
        else:
            self.store(key, body)
        self.answer(201)

    def do_POST(self) -> None:
        """Delete several blobs, each by a request inside the request."""
        _, _, body = self.parse()
        boundary = "reply"
        replies: list[str] = []
        for number, path in enumerate(re.findall(rb"DELETE (\S+) HTTP", body)):
            key = unquote(urlsplit(path.decode()).path).removeprefix(self.root + "/")
            status = "202 Accepted" if self.remove(key) else "404 BlobNotFound"
            replies.append(
                f"--{boundary}\r\nContent-Type: application/http\r\n"
                f"Content-ID: {number}\r\n\r\nHTTP/1.1 {status}\r\n"
                "x-ms-error-code: BlobNotFound\r\n\r\n\r\n"
            )
        text = "".join(replies) + f"--{boundary}--\r\n"
        kind = f"multipart/mixed; boundary={boundary}"
        self.answer(202, text.encode(), Content_Type=kind)


@pytest.fixture(scope="module")
def google() -> Iterator[Cloud]:
    cloud = Cloud(Google)
    yield cloud
    cloud.stop()


@pytest.fixture(scope="module")
def azure() -> Iterator[Cloud]:
    cloud = Cloud(Azure)
    yield cloud
    cloud.stop()


def google_options(cloud: Cloud) -> dict[str, Any]:
    account = {
        "gcs_base_url": cloud.endpoint,
        "disable_oauth": True,
        "client_email": "",
        "private_key": "",
        "private_key_id": "",
    }
    return {
        "service_account_key": json.dumps(account),
        "client_options": {"allow_http": True},
    }


def azure_options(cloud: Cloud) -> dict[str, Any]:
    return {
        "account_name": "box",
        "account_key": base64.b64encode(b"key").decode(),
        "endpoint": cloud.endpoint,
    }


class TestGoogle(StorageBackendContract):
    @pytest.fixture
    def backend(self, google: Cloud) -> Iterator[StorageBackend]:
        google.objects.clear()
        with open_backend("gs://bucket/a b", **google_options(google)) as backend:
            yield backend


class TestAzure(StorageBackendContract):
    @pytest.fixture
    def backend(self, azure: Cloud) -> Iterator[StorageBackend]:
        azure.objects.clear()
        with open_backend("az://box/a b", **azure_options(azure)) as backend:
            yield backend
