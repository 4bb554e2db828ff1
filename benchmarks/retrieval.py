"""A beamtime over HTTP, against Tiled's own catalogue with the same data.

The same runs are served by ``beamtime serve`` and, copied by ``beamtime push``, by a
stock server of Tiled, each in a process of its own: a stack of 500 frames of 512² (the
very same Zarr array), a table of 100 000 events, and many short runs. A client asks
each in turns, after a first question that does not count. Run it where
``tiled[server]`` is installed.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import event_model
import numpy as np

from bluesky_beamtime import Beamtime

AT_LEAST = 1.0
FIELDS = [f"soft_{number}" for number in range(8)]
_STOCK = """
import sys, tiled.server.simple as simple
simple._STARTUP_TIMEOUT = 90
server = simple.SimpleTiledServer(
    sys.argv[1], api_key="bench", readable_storage=[sys.argv[2]]
)
print(server.uri, flush=True)
sys.stdin.read()
server.close()
"""


def record_stack(beamtime: Beamtime, frames: int) -> str:
    """Record a run of frames, and return its uid."""
    composed = event_model.compose_run(metadata={"plan_name": "stack", "scan_id": 1})
    beamtime("start", composed.start_doc)
    key = {
        "source": "bench",
        "dtype": "array",
        "dtype_numpy": "<u2",
        "shape": [512, 512],
        "external": "STREAM:",
    }
    stream = composed.compose_descriptor(
        name="primary",
        data_keys={"cam": key},
        hints={},
        configuration={},
        object_keys={"cam": ["cam"]},
    )
    beamtime("descriptor", stream.descriptor_doc)
    rng = np.random.default_rng(0)
    sink = beamtime.frames.attach("cam", shape=(512, 512), dtype=np.dtype("<u2"))
    for _ in range(frames):
        sink.write(rng.poisson(100, (512, 512)).astype("<u2"))
    sink.close()
    resource = composed.compose_stream_resource(
        mimetype="application/x-zarr",
        uri=sink.uri,
        data_key="cam",
        parameters={"chunk_shape": [1, 512, 512]},
    )
    beamtime("stream_resource", resource.stream_resource_doc)
    rows = {"start": 0, "stop": frames}
    numbers = {"start": 1, "stop": frames + 1}
    beamtime(
        "stream_datum",
        resource.compose_stream_datum(rows, numbers, stream.descriptor_doc),
    )
    beamtime("stop", composed.compose_stop())
    return composed.start_doc["uid"]


def record_table(beamtime: Beamtime, events: int) -> str:
    """Record a run of numbers, and return its uid."""
    composed = event_model.compose_run(metadata={"plan_name": "table", "scan_id": 2})
    beamtime("start", composed.start_doc)
    number = {"source": "bench", "dtype": "number", "shape": []}
    stream = composed.compose_descriptor(
        name="primary",
        data_keys={field: dict(number) for field in FIELDS},
        hints={},
        configuration={},
        object_keys={"soft": FIELDS},
    )
    beamtime("descriptor", stream.descriptor_doc)
    times = np.arange(events, dtype=float)
    page = stream.compose_event_page(
        data={field: (times * i).tolist() for i, field in enumerate(FIELDS)},
        timestamps={field: times.tolist() for field in FIELDS},
        seq_num=list(range(1, events + 1)),
        time=times.tolist(),
        validate=False,
    )
    beamtime("event_page", page)
    beamtime("stop", composed.compose_stop())
    return composed.start_doc["uid"]


def record_short(beamtime: Beamtime, runs: int) -> list[dict[str, Any]]:
    """Record runs without events, and return their metadata."""
    made: list[dict[str, Any]] = []
    for number in range(runs):
        composed = event_model.compose_run(
            metadata={
                "plan_name": ("count", "scan", "fly")[number % 3],
                "scan_id": number + 3,
                "operator": f"operator{number % 100}",
                "optics": {"energy": 8.0 + number % 7},
            }
        )
        beamtime("start", composed.start_doc)
        stop = composed.compose_stop()
        beamtime("stop", stop)
        made.append({"start": dict(composed.start_doc), "stop": dict(stop)})
    return made


@contextmanager
def server(command: list[str]) -> Iterator[str]:
    """Run a server, and give the address for clients."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        while True:
            found = re.search(r'http://[^"]*/api/v1[^"\s]*', process.stdout.readline())
            if found:
                break
        yield found[0]
    finally:
        process.stdin.close()
        process.terminate()
        process.wait()


def make_catalog(address: str) -> Any:
    """Return a client of a new catalogue of runs in the stock server."""
    from tiled.client import from_uri
    from tiled.structures.core import Spec

    root = from_uri(address)
    return root.create_container("runs", specs=[Spec("CatalogOfBlueskyRuns", "3.0")])


def fill(client: Any, beamtime: Beamtime, large: list[str], short: Any) -> None:
    """Copy the runs into the stock server."""
    from tiled.structures.core import Spec

    from bluesky_beamtime.serving.push import push

    report = push([beamtime[uid] for uid in large], client)
    assert report.pushed == large, report
    for metadata in short:
        client.create_container(
            metadata["start"]["uid"],
            metadata=metadata,
            specs=[Spec("BlueskyRun", version="3.0")],
        )


def questions(stack: str, table: str) -> dict[str, Callable[[Any], int]]:
    """Return what is asked; each answers with how much it got."""
    from tiled.queries import FullText, Key

    return {
        "stack": lambda c: c[stack]["primary"]["cam"].read().shape[0],
        "one frame": lambda c: c[stack]["primary"]["cam"][-1].shape[0],
        "table": lambda c: len(c[table]["primary"].base["internal"].read()),
        "three columns": lambda c: len(
            c[table]["primary"].base["internal"].read(FIELDS[:3])
        ),
        "keys of all": lambda c: len(list(c)),
        "newest 50": lambda c: len(c.sort(("_", -1)).values()[:50]),
        "search plan": lambda c: len(c.search(Key("plan_name") == "fly").values()[:50]),
        "search nested": lambda c: len(
            c.search(Key("optics.energy") > 13).values()[:50]
        ),
        "search text": lambda c: len(c.search(FullText("operator42")).values()[:50]),
        "scan id": lambda c: c[500].start["scan_id"],
    }


def ask(clients: dict[str, Any], question: Any, rounds: int) -> dict[str, list[float]]:
    """Time a question to each server in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in clients}
    for turn in range(rounds + 1):
        answers: set[int] = set()
        for name, client in clients.items():
            begun = time.perf_counter()
            answers.add(question(client))
            if turn:
                seconds[name].append(time.perf_counter() - begun)
        assert len(answers) == 1, answers
    return seconds


def main() -> int:
    """Measure, print, and say whether nothing is slower."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=500)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="some of the questions")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    from tiled.client import from_uri

    slower: list[str] = []
    lines: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        stock = folder / "stock"
        stock.mkdir()
        with Beamtime(folder / "x.db") as beamtime:
            stack = record_stack(beamtime, options.frames)
            table = record_table(beamtime, options.events)
            short = record_short(beamtime, options.runs)
            ours = [sys.executable, "-m", "bluesky_beamtime", "serve", "--port", "0"]
            theirs = [sys.executable, "-c", _STOCK, str(stock), str(folder)]
            with (
                server([*ours, str(beamtime.path)]) as address,
                server(theirs) as other,
            ):
                clients = {"ours": from_uri(address), "tiled": make_catalog(other)}
                fill(clients["tiled"], beamtime, [stack, table], short)
                print(f"{'':14} {'ours':>9} {'tiled':>9} {'ratio':>7}")
                for name, question in questions(stack, table).items():
                    if options.only and name not in options.only:
                        continue
                    seconds = ask(clients, question, options.rounds)
                    mine, its = (statistics.median(seconds[n]) for n in clients)
                    ratio = statistics.median(
                        b / a
                        for a, b in zip(seconds["ours"], seconds["tiled"], strict=True)
                    )
                    print(
                        f"{name:14} {mine * 1e3:6.1f} ms {its * 1e3:6.1f} ms "
                        f"{ratio:6.2f} x",
                        flush=True,
                    )
                    if ratio < AT_LEAST:
                        slower.append(name)
                    lines.append({"question": name, "ours": mine, "ratio": ratio})
                for client in clients.values():
                    client.context.close()
    if options.json:
        options.json.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")
    if slower:
        print("slower:", ", ".join(slower))
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
