"""What the modules about Parquet files share: the library, and what files say."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

from bluesky_beamtime.errors import SinkSchemaError

KEY = b"bluesky_beamtime"
"""Under which a file of ours says what it holds."""
READINGS_PER_GROUP = 100_000


def parquet() -> Any:
    """Return the library, which is imported where it is used."""
    import pyarrow.parquet

    # It ships no types worth the name.
    return cast("Any", pyarrow.parquet)


def facts_of(path: Path) -> dict[str, Any]:
    """Return what a file of ours says of itself; nothing for one of others."""
    try:
        metadata: dict[bytes, bytes] = parquet().read_schema(path).metadata or {}
    except ValueError as error:
        raise SinkSchemaError(
            f"{path} is no finished Parquet file ({error}); move it away, or begin "
            "anew with overwrite=True"
        ) from error
    return json.loads(metadata.get(KEY, b"{}"))


def sync_file(path: Path) -> None:
    """Bring a file to the device."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
