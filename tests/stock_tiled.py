"""A server of Tiled in a process that knows nothing of this package."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KEY = "stockkey"

_PROGRAM = """
import sys

# A busy machine takes longer than the server allows itself to start.
import tiled.server.simple as simple
simple._STARTUP_TIMEOUT = 90
server = simple.SimpleTiledServer(
    sys.argv[1], api_key=sys.argv[2], readable_storage=sys.argv[3:]
)
print(server.uri, flush=True)
sys.stdin.read()
print(*(name for name in sys.modules if name.startswith("bluesky")), flush=True)
server.close()
"""


@contextmanager
def stock_tiled(folder: Path, *readable: Path) -> Iterator[str]:
    """Run Tiled's own catalogue, and give its address, with its key.

    Parameters
    ----------
    folder
        Where it keeps what is its own.
    readable
        Folders whose files it may serve.
    """
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", _PROGRAM, str(folder), KEY, *map(str, readable)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=folder,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
        process.stdin.close()
        loaded = process.stdout.readline().split()
        assert not [name for name in loaded if name.startswith("bluesky_beamtime")]
        process.wait(60)
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
