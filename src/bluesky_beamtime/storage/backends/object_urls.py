"""The URLs, options and texts of object stores."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib import import_module
from typing import Any
from urllib.parse import unquote

from bluesky_beamtime.errors import MissingExtraError, PathError
from bluesky_beamtime.storage.backends.keys import check_prefix
from bluesky_beamtime.storage.backends.registry import scheme_of

# The name of a scheme, and obstore's class for it.
KINDS = {
    "s3": ("s3", "S3Store"),
    "s3a": ("s3", "S3Store"),
    "gs": ("gs", "GCSStore"),
    "gcs": ("gs", "GCSStore"),
    "az": ("az", "AzureStore"),
    "azure": ("az", "AzureStore"),
}
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


def parse_url(url: str) -> tuple[str, str, str]:
    """Return the canonical scheme, the bucket and the prefix of a URL."""
    scheme = scheme_of(url)
    if scheme not in KINDS or not url[len(scheme) :].startswith("://"):
        raise PathError(
            "an object store's URL reads s3://bucket/prefix, gs:// or az://"
        )
    bucket, _, path = url[len(scheme) + 3 :].partition("/")
    # The messages below do not repeat the URL: it may hold a secret.
    if "@" in bucket or "?" in url or "#" in url:
        raise PathError(
            f"credentials and options do not belong into a URL ({scheme}://…): give "
            "them as keywords of open_backend, or in the environment; write '?' and "
            "'#' of a prefix as %3F and %23"
        )
    if not bucket:
        raise PathError(f"{url!r} names no bucket; write {scheme}://bucket/prefix")
    return KINDS[scheme][0], bucket, check_prefix(unquote(path))


def load_obstore(scheme: str) -> Any:
    """Import obstore; ``MissingExtraError`` names the extra that brings it."""
    try:
        import_module("obstore.exceptions")
        return import_module("obstore")
    except ImportError as error:
        raise MissingExtraError(f"a store at {scheme}://", "obstore", "s3") from error


def is_plain_http(scheme: str, options: Mapping[str, Any]) -> bool:
    """Say whether the endpoint that was chosen is one without encryption."""
    chosen = [options.get(name) for name in ("endpoint", "aws_endpoint", "base_url")]
    if scheme == "s3" and not any(chosen):
        chosen = [os.environ.get(name) for name in _ENDPOINTS]
    return any(str(value).lower().startswith("http:") for value in chosen if value)


def reason_of(error: BaseException) -> str:
    """Return the first line of obstore's text, without what may be a secret."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"\?\S*", "", lines[0])
