"""How fast cameras deliver through Bluesky, as ratios to what they stand on.

Gate S6: ``RE(fly_frames([cam1, cam2], …))``, two cameras in one store and recorded in a
database, to a bare loop over two sinks. And ``PvaCamera``, recording, to a bare p4p
monitor that only counts the frames of the same server: as fast as that posts, and at a
rate at which the bare monitor loses none.

Every ratio is the median over interleaved rounds. Run::

    python benchmarks/acquisition.py            # both places, ten minutes
    python benchmarks/acquisition.py --quick    # smaller and less exact
    python benchmarks/acquisition.py --json docs/reference/figures/acquisition.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from engines import detector_frames
from machine import describe, finished
from ratios import Gate
from scans import flying
from streams import QUEUE, Received, Recorder, Server, counted
from tables import show

MEBI = 1 << 20
SHAPES = ((2048, 2048), (512, 512))
STREAMED = ((1024, 1024), (512, 512))
PACED = 0.6
"""Share of the bare monitor's rate at which frames are posted on time."""


@dataclass(frozen=True)
class Stream:
    """A client beside the other, in one setting."""

    place: str
    frames: str
    pace: str
    client: str
    offered: float
    """Frames posted a second."""
    received: float
    """Frames received a second."""
    to_bare: float
    """The same to those of the bare monitor, round by round."""
    lost_percent: float


def scanning(place: Path, name: str, mebi: int, rounds: int) -> list[Gate]:
    """Measure a fly scan with two cameras against a bare loop (S6)."""
    gates: list[Gate] = []
    for shape in SHAPES:
        with tempfile.NamedTemporaryFile(suffix=".npy", dir="/dev/shm") as file:
            np.save(file, np.stack(detector_frames(shape, "noise")))
            file.flush()
            values, count = flying(place, Path(file.name), mebi, rounds)
        work = f"2 × {count} frames of {shape[0]}² u16, fly scan to bare loop"
        gates.append(Gate.of("S6", name, work, values, 0.80))
    return gates


def streaming(place: Path, name: str, mebi: int, rounds: int) -> list[Stream]:
    """Measure the camera against a bare monitor of the same server, in turns."""
    recorder = Recorder()
    found: list[Stream] = []
    for shape in STREAMED:
        # Many more than may wait, which would come at once.
        count = max(8 * QUEUE, mebi * MEBI // (shape[0] * shape[1] * 2))
        rate = 0.0
        for pace in ("as fast as it goes", "on time"):
            with Server(shape, rate) as server:
                conf = server.conf
                work: dict[str, Callable[[], Received]] = {
                    "p4p monitor": lambda conf=conf, n=count: counted(conf, n),
                    "PvaCamera": lambda conf=conf, n=count: recorder.record(
                        conf, n, place
                    ),
                }
                rows: dict[str, list[Received]] = {client: [] for client in work}
                for number in range(rounds + 1):
                    for client, receive in work.items():
                        one = receive()
                        if number:  # the first round warms up
                            rows[client].append(one)
            bare = rows["p4p monitor"]
            found += [
                _stream(name, shape, pace, client, ones, bare)
                for client, ones in rows.items()
            ]
            rate = PACED * statistics.median(one.rate for one in bare)
    return found


def _stream(
    place: str,
    shape: tuple[int, int],
    pace: str,
    client: str,
    ones: list[Received],
    bare: list[Received],
) -> Stream:
    ratios = [one.rate / other.rate for one, other in zip(ones, bare, strict=True)]
    lost = sum(one.lost for one in ones)
    return Stream(
        *(place, f"{shape[0]}×{shape[1]}", pace, client),
        round(statistics.median(one.offered for one in ones), 1),
        round(statistics.median(one.rate for one in ones), 1),
        round(statistics.median(ratios), 3),
        round(100 * lost / (lost + sum(one.frames for one in ones)), 3),
    )


def main() -> None:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tmpfs", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--disk", type=Path, default=Path.cwd())
    parser.add_argument("--only", choices=("tmpfs", "disk"))
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--rounds", type=int, help="rounds, by default 7 (quick: 5)")
    parser.add_argument("--mebi", type=int, help="MiB of a scan, 2048 (quick: 512)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    rounds = options.rounds or (5 if options.quick else 7)
    mebi = options.mebi or (512 if options.quick else 2048)
    machine = describe()
    gates: list[Gate] = []
    streams: list[Stream] = []
    for name, place in (("tmpfs", options.tmpfs), ("disk", options.disk)):
        if options.only in (None, name):
            gates += scanning(place, name, mebi, rounds)
            streams += streaming(place, name, mebi // 4, rounds)
    show([], gates)
    for one in streams:
        print(
            f"{one.place:6} {one.frames:10} {one.pace:19} {one.client:12} "
            f"offered {one.offered:8.1f}/s  received {one.received:8.1f}/s  "
            f"to bare {one.to_bare:.3f}  lost {one.lost_percent:.2f} %"
        )
    if options.json:
        figures = {
            "machine": finished(machine),
            "rounds": rounds,
            "mebi": mebi,
            "gates": [asdict(gate) for gate in gates],
            "streams": [asdict(one) for one in streams],
        }
        options.json.write_text(json.dumps(figures, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
