"""Children to be killed: forked from a process that has imported everything already.

Run as a script with a folder; reads lines ``<number> <compression> <size>``, forks a
child for each, which writes into ``<folder>/<number>``, and prints its process id.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

import numpy as np

from bluesky_beamtime.storage import make_writer


def frame(number: int, source: int, index: int, size: int) -> np.ndarray[Any, Any]:
    """Return the frame that a child writes; its index stands in its first pixel."""
    rng = np.random.default_rng([number, source, index])
    made = rng.poisson(5, (size, size)).astype("<u2")
    made[0, 0] = index % 65536
    return made


def write(folder: str, number: int, compression: str, size: int) -> None:
    """Write two sources until killed; acknowledge each frame in a file."""
    writer = make_writer("application/x-hdf5", "killed", compression=compression)
    writer.set_uri(folder)
    sinks = [writer.prepare(name, name, "<u2", (size, size)) for name in ("a", "b")]
    writer.kickoff()
    acks = os.open(f"{folder}/acks", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def run(source: int) -> None:
        index = 0
        while True:
            sinks[source].write(frame(number, source, index, size))
            line = f"{source} {index} {sinks[source].frames_published}\n"
            os.write(acks, line.encode())
            index += 1
            if index % 7 == 0:
                sinks[source].set_attributes({"accounting": {"written": index}})
            if index % 31 == 0:
                sinks[source].publish()

    for source in (0, 1):
        threading.Thread(target=run, args=(source,)).start()


def main() -> None:
    """Fork on demand."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        number, compression, size = line.split()
        child = os.fork()
        if child == 0:
            write(f"{sys.argv[1]}/{number}", int(number), compression, int(size))
            return
        print(child, flush=True)


if __name__ == "__main__":
    main()
