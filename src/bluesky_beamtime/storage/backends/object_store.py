"""Object stores as backends: ``s3://bucket/prefix``, ``gs://…`` and ``az://…``.

The work is done by obstore (extra ``s3``), which is imported when a store is opened.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from typing import Any
from urllib.parse import quote

from bluesky_beamtime.errors import (
    BackendError,
    KeyNotFoundError,
    StorageError,
)
from bluesky_beamtime.storage.backends.base import Backend
from bluesky_beamtime.storage.backends.keys import (
    join_key,
    names_container,
)
from bluesky_beamtime.storage.backends.object_urls import (
    KINDS,
    is_plain_http,
    load_obstore,
    parse_url,
    reason_of,
)
from bluesky_beamtime.storage.backends.protocol import BytesLike
from bluesky_beamtime.storage.backends.registry import register_backend
from bluesky_beamtime.storage.backends.values import as_buffer, check_range, file_pieces

# An endpoint that is down is given up after about a second when it refuses, after some
# twenty when it is silent. obstore's own limits amount to minutes.
_CLIENT_OPTIONS = {"connect_timeout": "5s", "timeout": "20s"}
_RETRY_CONFIG: dict[str, Any] = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=10),
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=2),
        "base": 2,
    },
}
# What S3 takes as the least for a part of an upload in parts.
_PART_BYTES = 5 << 20
# S3 takes 10 000 parts; a file may have grown since its size was asked for.
_MOST_PARTS = 9000
# Keys that one request lists, and deletes, at the most.
_PAGE = 1000
_DENIED = re.compile(r"status code: 40[13]\b")


@register_backend(*KINDS)
class ObjectStoreBackend(Backend):
    """Values as the objects of a bucket or container, below a prefix.

    A value is put as a whole (in parts from 5 MiB on) and appears as a whole.
    Containers exist only through what lies in them. Listings come in pages of a
    thousand, in the order of the server, which is sorted for S3, Google and Azure; from
    an S3 directory bucket (``…--x-s3``), which does not sort, everything is gathered
    first. The children of one container are always gathered first.

    Parameters
    ----------
    url
        ``s3://bucket/prefix``, ``gs://bucket/prefix`` or ``az://container/prefix``,
        percent-encoded; options and credentials are not accepted in it.
    allow_http
        Accept an endpoint without encryption; by default when its URL begins with
        ``http:``.
    client_options
        Options of the HTTP client, such as ``{"timeout": "60s"}``, over the defaults
        here: 5 s to connect, 20 s for a request.
    retry_config
        How failed requests are tried again, over the default here: three times, within
        10 s.
    **options
        The others go to obstore's ``S3Store``, ``GCSStore`` or ``AzureStore``:
        ``endpoint``, ``region``, ``access_key_id``, ``account_name``,
        ``credential_provider`` and so on. What is not given is taken from the usual
        environment variables.

    Raises
    ------
    MissingExtraError
        obstore is not installed.
    PathError
        The URL has no bucket, or has options or credentials in it.
    TypeError
        obstore knows no such option.
    """

    def __init__(
        self,
        url: str,
        *,
        allow_http: bool | None = None,
        client_options: Mapping[str, Any] | None = None,
        retry_config: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self._scheme, self._bucket, self._root = parse_url(url)
        self._arguments = (url, allow_http, client_options, retry_config, options)
        # A bucket that has answered once is there; until then "not found" may mean it.
        self._bucket_seen = False
        self._sorted = not self._bucket.endswith("--x-s3")
        self._obstore = load_obstore(self._scheme)
        client = {**_CLIENT_OPTIONS, **(client_options or {})}
        if allow_http is None:
            allow_http = is_plain_http(self._scheme, options)
        client.setdefault("allow_http", allow_http)
        kind: Any = getattr(import_module("obstore.store"), KINDS[self._scheme][1])
        try:
            self._store: Any = kind(
                self._bucket,
                prefix=self._root or None,
                client_options=client,
                retry_config={**_RETRY_CONFIG, **(retry_config or {})},
                **options,
            )
        except self._obstore.exceptions.UnknownConfigurationKeyError as error:
            raise TypeError(f"{self.url} knows no such option: {error}") from error
        except self._obstore.exceptions.BaseError as error:
            raise BackendError(f"cannot open {self.url}: {reason_of(error)}") from error

    @property
    def url(self) -> str:
        """Canonical URL of the root, without options and credentials."""
        return f"{self._scheme}://{join_key(self._bucket, quote(self._root))}"

    # -------------------------------------------------------------------- values

    def put_bytes(self, key: str, data: BytesLike) -> None:
        """Write a value or replace it."""
        self._key(key)
        self._put(key, as_buffer(data))

    def put_file(self, key: str, path: str | os.PathLike[str], size: int) -> None:
        """Write the first ``size`` bytes of a file as a value, in parts of 5 MiB."""
        self._key(key)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if size <= _PART_BYTES:
                self._put(key, os.pread(fd, size, 0))
            else:
                self._put(key, file_pieces(fd, size, _PART_BYTES), size)
        finally:
            os.close(fd)

    def put_pieces(self, key: str, pieces: Iterable[bytes], size: int) -> None:
        """Write pieces as a value, in parts of 5 MiB or, of huge values, more."""
        self._key(key)
        if size <= _PART_BYTES:
            self._put(key, b"".join(pieces))
        else:
            # Other values travel at the same time: few parts of each are in memory.
            self._put(key, iter(pieces), size, at_once=4)

    def _put(self, key: str, data: Any, size: int = 0, at_once: int = 12) -> None:
        part = max(_PART_BYTES, -(-size // _MOST_PARTS))
        try:
            with self._errors("write", key):
                self._obstore.put(
                    self._store, key, data, chunk_size=part, max_concurrency=at_once
                )
        except KeyNotFoundError as error:
            raise self._no_bucket(key) from error

    def get_bytes(self, key: str) -> bytes:
        """Return a value."""
        self._key(key)
        with self._errors("read", key):
            return bytes(self._obstore.get(self._store, key).bytes())

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``start`` on, fewer at the end."""
        self._key(key)
        check_range(start, length)
        if length == 0:
            self.get_size(key)
            return b""
        try:
            with self._errors("read", key):
                return bytes(
                    self._obstore.get_range(
                        self._store, key, start=start, length=length
                    )
                )
        except BackendError:
            # Servers refuse a range behind the end, each in its own words.
            if self.get_size(key) <= start:
                return b""
            raise

    def get_size(self, key: str) -> int:
        """Return the size of a value in bytes."""
        self._key(key)
        with self._errors("look up", key):
            return int(self._obstore.head(self._store, key)["size"])

    def exists(self, key: str) -> bool:
        """Say whether there is a value; False for containers and for ``""``."""
        self._check_open()
        if names_container(key):
            return False
        try:
            self.get_size(key)
        except KeyNotFoundError:
            return False
        return True

    def delete(self, key: str) -> None:
        """Remove one object; nothing happens if there is none."""
        self._delete([self._key(key)], key)

    def delete_prefix(self, prefix: str, *, everything: bool = False) -> None:
        """Remove what lies below a prefix, up to a thousand objects per request."""
        prefix = self._prefix_to_delete(prefix, everything)
        for page in self._pages(prefix):
            self._delete(page, prefix)

    def _delete(self, keys: list[str], what: str) -> None:
        try:
            with self._errors("delete", what):
                self._obstore.delete(self._store, keys)
        except KeyNotFoundError:
            # Google and Azure say so of an object that is gone, S3 does not. One of
            # several that is gone may have kept the others from being deleted.
            if len(keys) > 1:
                for key in keys:
                    self._delete([key], key)

    # ---------------------------------------------------------------- containers

    def list_prefix(self, prefix: str, recursive: bool = False) -> Iterator[str]:
        """Yield full keys below a prefix in sorted order, a page at a time."""
        prefix = self._prefix(prefix)
        return self._list_all(prefix) if recursive else self._list_children(prefix)

    def _list_children(self, prefix: str) -> Iterator[str]:
        self._check_open()
        with self._errors("list", prefix):
            found = self._obstore.list_with_delimiter(self._store, prefix or None)
        names = {f"{name}/" for name in found["common_prefixes"]}
        names.update(
            meta["path"] for meta in found["objects"] if self._is_value(meta, prefix)
        )
        for name in sorted(names):
            self._check_open()
            yield name

    def _list_all(self, prefix: str) -> Iterator[str]:
        if not self._sorted:
            yield from sorted(key for page in self._pages(prefix) for key in page)
            return
        for page in self._pages(prefix):
            for key in page:
                self._check_open()
                yield key

    def _pages(self, prefix: str) -> Iterator[list[str]]:
        self._check_open()
        stream: Any = None
        while True:
            with self._errors("list", prefix):
                if stream is None:
                    stream = self._obstore.list(
                        self._store, prefix or None, chunk_size=_PAGE
                    )
                page: Any = next(stream, None)
            if page is None:
                return
            yield [meta["path"] for meta in page if self._is_value(meta, prefix)]

    def _is_value(self, meta: Any, prefix: str) -> bool:
        # Consoles mark "folders" by empty objects "a/", which are listed here as "a".
        path: str = meta["path"]
        return path != prefix and (meta["size"] > 0 or self.exists(path))

    # ------------------------------------------------------------------- helpers

    @contextmanager
    def _errors(self, verb: str, key: str) -> Generator[None]:
        """Translate what obstore raises; only absence becomes a ``KeyError``."""
        exceptions = self._obstore.exceptions
        try:
            yield
        except StorageError:
            # Of whoever makes the value.
            raise
        except FileNotFoundError as error:
            self._look_for_bucket(key)
            raise KeyNotFoundError(key, self.url) from error
        except (
            exceptions.PermissionDeniedError,
            exceptions.UnauthenticatedError,
        ) as error:
            raise BackendError(
                f"cannot {verb} {key!r} in {self.url}: access denied. Check the "
                f"credentials and what they may do ({reason_of(error)})",
                filename=key,
            ) from error
        except (exceptions.BaseError, OSError, ValueError) as error:
            raise BackendError(
                f"cannot {verb} {key!r} in {self.url}: {reason_of(error)}", filename=key
            ) from error
        self._bucket_seen = True

    def _look_for_bucket(self, key: str) -> None:
        """Raise if it is not the key that is missing but the whole bucket."""
        if self._bucket_seen:
            return
        try:
            next(self._obstore.list(self._store, chunk_size=1), None)
        except (self._obstore.exceptions.BaseError, OSError) as error:
            # Who may read but not list is denied; then the server's word on the key
            # stands. obstore has no type of its own for a listing that is denied.
            if not _DENIED.search(str(error)):
                raise self._no_bucket(key) from error
        self._bucket_seen = True

    def _no_bucket(self, key: str) -> BackendError:
        return BackendError(
            f"cannot find {self._bucket!r}, the bucket of {self.url}; create it, or "
            "check name, region and endpoint",
            filename=key,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, self._arguments


def _reopen(
    url: str, allow_http: bool | None, client: Any, retry: Any, options: Any
) -> ObjectStoreBackend:
    return ObjectStoreBackend(
        url, allow_http=allow_http, client_options=client, retry_config=retry, **options
    )
