"""A beamtime over HTTP, against Tiled's own catalogue with the same data.

The same runs are served by ``beamtime serve`` and, copied by ``beamtime push``, by a
stock server of Tiled, each in a process of its own: a stack of 500 frames of 512² (the
very same Zarr array), a table of 100 000 events, and many short runs. A client asks
each in turns, after a first question that does not count. Then 100 000 runs are
served by ours alone (Tiled's catalogue takes 32 a second, an hour), and the stack is
read from the disk too, as zarr-python does without shards. Run it where
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
from database import build, p95
from machine import describe, finished

from bluesky_beamtime import Beamtime

AT_LEAST = 1.0
OURS = [sys.executable, "-m", "bluesky_beamtime", "serve", "--port", "0"]
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
                "sample": f"sample {number % 50}",
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


Question = Callable[[Any], int]


def questions(stack: str, table: str) -> dict[str, Question]:
    """Return what is asked about data; each answers with how much it got."""
    return {
        "stack": lambda c: c[stack]["primary"]["cam"].read().shape[0],
        "one frame": lambda c: c[stack]["primary"]["cam"][-1].shape[0],
        "table": lambda c: len(c[table]["primary"].base["internal"].read()),
        "three columns": lambda c: len(
            c[table]["primary"].base["internal"].read(FIELDS[:3])
        ),
    }


def searches(some: dict[str, Any], text: str, nested: str) -> dict[str, Question]:
    """Return what is asked of a list of runs, as ``some`` start document has it."""
    from tiled.queries import FullText, Key

    def page(found: Any) -> int:
        return len(found.values()[:50])

    return {
        "300 keys": lambda c: len(c.keys()[:300]),
        "newest 50": lambda c: page(c.sort(("_", -1))),
        "scan id": lambda c: c[some["scan_id"]].start["scan_id"],
        "part of a uid": lambda c: c[some["uid"][:8]].start["scan_id"],
        "50 of a plan": lambda c: page(c.search(Key("plan_name") == some["plan_name"])),
        "50 of a sample": lambda c: page(c.search(Key("sample") == some["sample"])),
        "50 by a nested key": lambda c: page(c.search(Key(nested) > 13)),
        "50 with a word": lambda c: page(c.search(FullText(text))),
    }


def stack_from_disk(beamtime: Beamtime, uid: str, folder: Path) -> dict[str, Any]:
    """Return how to read the stack without a server: ours, Tiled's client, and zarr."""
    import zarr

    frames = beamtime[uid].primary.read()["cam"].values
    plain = zarr.create_array(
        folder / "plain.zarr",
        shape=frames.shape,
        chunks=(1, *frames.shape[1:]),
        dtype=frames.dtype,
        compressors=None,
    )
    plain[:] = frames
    client = beamtime.tiled()
    return {
        "zarr-python, no shards": lambda: zarr.open_array(plain.store, mode="r")[:],
        "beamtime[uid]": lambda: beamtime[uid].primary.read()["cam"].values,
        "beamtime.tiled()": lambda: client[uid]["primary"]["cam"].read(),
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


def line(name: str, seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Return the figures of a question, and print them."""
    mine, its = seconds["ours"], seconds["tiled"]
    ratios = [theirs / ours for ours, theirs in zip(mine, its, strict=True)]
    figures = {
        "question": name,
        "ours_ms": round(1e3 * statistics.median(mine), 2),
        "tiled_ms": round(1e3 * statistics.median(its), 2),
        "ours_p95_ms": round(1e3 * p95(mine), 2),
        "tiled_p95_ms": round(1e3 * p95(its), 2),
        "ratio": round(statistics.median(ratios), 2),
        "lowest": round(min(ratios), 2),
        "highest": round(max(ratios), 2),
    }
    print(
        f"{name:20} {figures['ours_ms']:8.1f} ms {figures['tiled_ms']:8.1f} ms "
        f"{figures['ratio']:6.2f} x  ({figures['lowest']:.2f}–{figures['highest']:.2f})"
        f"  p95 {figures['ours_p95_ms']:.1f} / {figures['tiled_p95_ms']:.1f} ms",
        flush=True,
    )
    return figures


def compare(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Ask ours and Tiled's, and read the stack from the disk."""
    from tiled.client import from_uri

    stock = folder / "stock"
    stock.mkdir()
    lines: list[dict[str, Any]] = []
    with Beamtime(folder / "x.db") as beamtime:
        stack = record_stack(beamtime, options.frames)
        table = record_table(beamtime, options.events)
        short = record_short(beamtime, options.runs)
        theirs = [sys.executable, "-c", _STOCK, str(stock), str(folder)]
        with (
            server([*OURS, str(beamtime.path)]) as address,
            server(theirs) as other,
        ):
            clients = {"ours": from_uri(address), "tiled": make_catalog(other)}
            fill(clients["tiled"], beamtime, [stack, table], short)
            asked = {
                **questions(stack, table),
                "keys of all": lambda c: len(list(c)),
                **searches(short[300]["start"], "operator42", "optics.energy"),
            }
            print(f"{'':20} {'ours':>11} {'tiled':>11} {'ratio':>8}")
            for name, question in asked.items():
                quick = name not in ("stack", "table", "three columns", "keys of all")
                rounds = options.rounds * (4 if quick else 1)
                lines.append(line(name, ask(clients, question, rounds)))
            reads = stack_from_disk(beamtime, stack, folder)
            reads["beamtime serve"] = lambda: clients["ours"][stack]["primary"][
                "cam"
            ].read()
            reads["Tiled's server"] = lambda: clients["tiled"][stack]["primary"][
                "cam"
            ].read()
            seconds = ask(
                {name: name for name in reads},
                lambda name: len(reads[name]()),
                options.rounds,
            )
            for client in clients.values():
                client.context.close()
    return {"lines": lines, "stack": from_disk(seconds)}


def from_disk(seconds: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Return how fast each way to the stack is beside zarr-python, and print it."""
    first, *_ = seconds
    found: list[dict[str, Any]] = []
    for name, values in seconds.items():
        pairs = zip(seconds[first], values, strict=True)
        ratio = statistics.median(theirs / mine for theirs, mine in pairs)
        milliseconds = 1e3 * statistics.median(values)
        print(f"stack, {name:24} {milliseconds:8.1f} ms {ratio:6.2f} x", flush=True)
        found.append(
            {"reader": name, "ms": round(milliseconds, 1), "ratio": round(ratio, 2)}
        )
    return found


def among_many(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Ask ours alone, with many more runs."""
    from tiled.client import from_uri

    path = folder / "many.db"
    writer = build(path, options.many)
    with Beamtime(path, mode="r") as beamtime:
        some = beamtime[options.many // 2].start
    found: list[dict[str, Any]] = []
    with server([*OURS, str(path)]) as address:
        client = from_uri(address)
        asked = searches(some, writer.words[100], "optics.energy")
        for name, question in asked.items():
            times = ask({"ours": client}, question, 4 * options.rounds)["ours"]
            figures = {
                "question": name,
                "ms": round(1e3 * statistics.median(times), 1),
                "p95_ms": round(1e3 * p95(times), 1),
            }
            print(f"of {options.many}: {name:20} {figures['ms']:8.1f} ms", flush=True)
            found.append(figures)
        client.context.close()
    return found


def main() -> int:
    """Measure, print, and say whether nothing is slower."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=500)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--many", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    machine = describe()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        figures = {
            "runs": options.runs,
            "many_runs": options.many,
            "rounds": options.rounds,
            "frames": options.frames,
            "events": options.events,
            **compare(options, folder),
            "many": among_many(options, folder),
        }
    if options.json:
        made = {"machine": finished(machine), **figures}
        options.json.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    slower = [each["question"] for each in figures["lines"] if each["ratio"] < AT_LEAST]
    if slower:
        print("slower:", ", ".join(slower))
    # The page of figures says so itself.
    return 1 if slower and not options.json else 0


if __name__ == "__main__":
    sys.exit(main())
