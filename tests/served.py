"""``beamtime serve`` in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def served(*arguments: str | Path) -> Iterator[str]:
    """Run the command with some arguments, and give the address for clients."""
    command = [sys.executable, "-m", "bluesky_beamtime", "serve", "--port", "0"]
    process = subprocess.Popen(
        [*command, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        printed = "".join(iter(process.stdout.readline, "Ctrl-C ends it.\n"))
        yield re.findall(r'from_uri\("(.*)"\)', printed)[0]
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


@contextmanager
def client_of(address: str) -> Iterator[Any]:
    """Give a client of Tiled for an address."""
    from tiled.client import from_uri

    client = from_uri(address)
    try:
        yield client
    finally:
        client.context.close()
