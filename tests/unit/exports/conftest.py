"""Runs to export: scalars, texts, arrays in events, and streamed frames."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import event_model
import numpy as np
import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.database import Run
from bluesky_beamtime.storage import HDF5Writer, ZarrWriter

N = 5
X = np.random.default_rng(0).random(N)  # all 17 digits
COUNTS = np.array([3, 2**53 + 1, 5, 7, 11])
WORDS = ["a", "b,c", 'd"e', "grün", ""]
SPECTRA = np.arange(N * 6, dtype="<f8").reshape(N, 6) / 7
MAPS = np.arange(N * 12, dtype="<u2").reshape(N, 3, 4)
CAM1 = np.random.default_rng(1).integers(0, 65535, (N, 8, 6), "uint16")
CAM2 = np.random.default_rng(2).random((N, 2, 4, 5)).astype("<f4")


def key(dtype: str, units: str | None = None, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"source": "sim", "dtype": dtype, "shape": [], **more}
    return found if units is None else found | {"units": units}


DATA_KEYS = {
    "x": key("number", "mm"),
    "counts": key("integer", "counts"),
    "word": key("string"),
    "spectrum": key("array", "keV", shape=[6], dtype_numpy="<f8"),
    "map": key("array", "counts", shape=[3, 4], dtype_numpy="<u2"),
    "cam1": key(
        "array", "counts", shape=[1, 8, 6], dtype_numpy="<u2", external="STREAM:"
    ),
    "cam2": key("array", "V", shape=[2, 4, 5], dtype_numpy="<f4", external="STREAM:"),
}

EXPECTED: dict[str, Any] = {
    "x": X,
    "counts": COUNTS,
    "word": WORDS,
    "spectrum": SPECTRA,
    "map": MAPS,
    "cam1": CAM1,
    "cam2": CAM2,
}


def damage(database: Path, table: str) -> None:
    """Spoil the first page of a table."""
    with closing(sqlite3.connect(database)) as connection:
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        query = "SELECT rootpage FROM sqlite_master WHERE name = ?"
        (page,) = connection.execute(query, (table,)).fetchone()
    with database.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xa5" * 200)


def emit_run(beamtime: Any, folder: Path, writers: Any, *, stored: int = N) -> str:
    """Emit a run with a camera for each writer, the second two frames an event."""
    frames = {"cam1": CAM1, "cam2": CAM2.reshape(-1, 4, 5)}
    cameras = list(frames)[: len(writers)]
    composed = event_model.compose_run(
        metadata={
            "plan_name": "scan",
            "scan_id": 7,
            "motors": ["x"],
            "detectors": ["det", "cam1", "cam2"],
            "hints": {"dimensions": [[["x"], "primary"]]},
            "energy": 12.4,
        }
    )
    beamtime("start", composed.start_doc)
    objects = {
        "x": ["x"],
        "det": ["counts", "word", "spectrum", "map"],
        **{name: [name] for name in cameras},
    }
    stream = composed.compose_descriptor(
        name="primary",
        data_keys={name: DATA_KEYS[name] for keys in objects.values() for name in keys},
        hints={"det": {"fields": ["counts"]}},
        configuration={
            "det": {
                "data": {"gain": 2.5},
                "timestamps": {"gain": 1.0},
                "data_keys": {"gain": key("number", "dB")},
            }
        },
        object_keys=objects,
    )
    beamtime("descriptor", stream.descriptor_doc)
    for name, writer_type in zip(cameras, writers, strict=True):
        values = frames[name]
        writer = writer_type.get(f"export-{name}")
        writer.set_uri(str(folder / name))
        each = len(values) // N
        sink = writer.prepare(name, name, values.dtype, values.shape[1:])
        writer.kickoff()
        sink.write_many(values[: stored * each])
        for kind, document in writer.collect_stream_docs(name, stored):
            if kind == "stream_resource":
                document = {**document, "run_start": composed.start_doc["uid"]}
            else:
                document = {
                    **document,
                    "descriptor": stream.descriptor_doc["uid"],
                    "seq_nums": {"start": 1, "stop": stored + 1},
                }
            beamtime(kind, document)
        sink.close()
        writer_type.release(f"export-{name}")
    for row in range(N):
        data = {
            "x": float(X[row]),
            "counts": int(COUNTS[row]),
            "word": WORDS[row],
            "spectrum": SPECTRA[row],
            "map": MAPS[row],
        }
        event = stream.compose_event(
            data=data,
            timestamps=dict.fromkeys(data, 100.0 + row),
            filled={},
            time=200.0 + row,
            validate=False,
        )
        beamtime("event", event)
    beamtime("stop", composed.compose_stop())
    return composed.start_doc["uid"]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with Beamtime(tmp_path / "x.db", sample="LaB6") as beamtime:
        folder = tmp_path / "frames"
        yield beamtime[emit_run(beamtime, folder, (ZarrWriter, HDF5Writer))]
