"""The children that ``kills.py`` kills: two sources written as fast as they go.

Run as a script with a folder; each line on its input is a JSON object, for which a
child is forked from this process, which has imported everything already. The child
writes into the folder ``<number>`` until it is killed, and its process id is printed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SOURCES = ("a", "b")
BEGUN, WRITTEN, PUBLISHED = range(3)
POOL = 8


def pool(number: int, source: int, size: int) -> NDArray[np.uint16]:
    """Return the frames that a child cycles through, before they are numbered."""
    random = np.random.default_rng([number, source])
    return random.poisson(5, (POOL, size, size)).astype("<u2")


def numbered(frames: NDArray[np.uint16], index: NDArray[Any]) -> NDArray[np.uint16]:
    """Return the frames of some indices; each index stands in its first two pixels."""
    made = frames[index % POOL]
    made[:, 0, 0] = index & 0xFFFF
    made[:, 0, 1] = index >> 16
    return made


def said(folder: Path, mode: Any = "r") -> NDArray[np.uint64]:
    """Return what a child said of each source: frames begun, written and published.

    It lies in memory that belongs to a file: once stored, no death takes it back.
    """
    return np.memmap(folder / "said", "<u8", mode, shape=(len(SOURCES), 3))


def write(folder: Path, order: dict[str, Any]) -> None:
    """Write until killed."""
    from bluesky_beamtime.storage import make_writer

    size = order["size"]
    writer = make_writer(order["mimetype"], "killed", **order["options"])
    writer.set_uri(str(folder / "store"))
    sinks = [writer.prepare(name, name, "<u2", (size, size)) for name in SOURCES]
    writer.kickoff()
    state = said(folder, "w+")

    def run(source: int) -> None:
        frames, sink, mine = (
            pool(order["number"], source, size),
            sinks[source],
            state[source],
        )
        index = 0
        while True:
            frame = frames[index % POOL]
            frame[0, 0], frame[0, 1] = index & 0xFFFF, index >> 16
            mine[BEGUN] = index + 1
            sink.write(frame)
            mine[WRITTEN] = index + 1
            index += 1
            if index % 257 == 0:
                sink.set_attributes({"accounting": {"written": index}})
            if index % 101 == 0:
                mine[PUBLISHED] = sink.publish()

    for source in range(len(SOURCES)):
        threading.Thread(target=run, args=(source,)).start()


def main() -> None:
    """Fork on demand."""
    import bluesky_beamtime.storage

    assert bluesky_beamtime.storage.make_writer
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        order = json.loads(line)
        folder = Path(sys.argv[1]) / str(order["number"])
        folder.mkdir()
        child = os.fork()
        if child == 0:
            write(folder, order)
            return
        print(child, flush=True)


if __name__ == "__main__":
    main()
