"""A beamtime with runs of every kind, and a client of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import event_model
import numpy as np
import pytest

from bluesky_beamtime import Beamtime

NUMBER = {"source": "sim://", "dtype": "number", "shape": []}


class Lab:
    """Records runs of scalars, and of arrays within events."""

    def __init__(self, beamtime: Beamtime) -> None:
        self.beamtime = beamtime
        self.emitted: dict[str, list[tuple[str, dict[str, Any]]]] = {}

    def run(
        self,
        points: int = 3,
        *,
        stop: bool = True,
        exit_status: str = "success",
        images: bool = False,
        fields: Mapping[str, Callable[[int], Any]] | None = None,
        stream_name: str = "primary",
        configured: str = "",
        **metadata: Any,
    ) -> str:
        """Record a run; ``fields`` are further ones, by what each point has."""
        more = fields or {}
        more_configured = {"text": configured} if configured else {}
        docs: list[tuple[str, dict[str, Any]]] = []

        def emit(name: str, doc: dict[str, Any]) -> None:
            docs.append((name, dict(doc)))
            self.beamtime(name, doc)

        metadata.setdefault("plan_name", "scan")
        metadata.setdefault("scan_id", len(self.emitted) + 1)
        composed = event_model.compose_run(metadata=metadata)
        emit("start", composed.start_doc)
        keys: dict[str, Any] = {
            "x": {**NUMBER, "units": "mm"},
            "y": dict(NUMBER),
            "label": {"source": "sim://", "dtype": "string", "shape": []},
        }
        if images:
            keys["image"] = {
                "source": "sim://",
                "dtype": "array",
                "dtype_numpy": "<u2",
                "shape": [4, 6],
            }
        for key, make in more.items():
            shape = list(np.shape(make(0)))
            dtype = "array" if shape else "number"
            keys[key] = {"source": "sim://", "dtype": dtype, "shape": shape}
        stream = composed.compose_descriptor(
            name=stream_name,
            data_keys=keys,
            hints={},
            configuration={
                "motor": {
                    "data": {"velocity": 2.5, **more_configured},
                    "timestamps": {"velocity": 1.0},
                    "data_keys": {"velocity": {**NUMBER, "units": "mm/s"}},
                }
            },
            object_keys={"motor": ["x"], "det": ["y", "label"]},
            validate=False,
        )
        emit("descriptor", stream.descriptor_doc)
        for point in range(points):
            data: dict[str, Any] = {
                "x": float(point),
                "y": float("nan") if point == 1 else 10.0 * point,
                "label": f"point {point}",
            }
            if images:
                data["image"] = np.full((4, 6), point, "<u2")
            data |= {key: make(point) for key, make in more.items()}
            emit(
                "event",
                stream.compose_event(
                    data=data,
                    timestamps=dict.fromkeys(data, 100.0 + point),
                    time=100.0 + point,
                ),
            )
        if stop:
            emit("stop", composed.compose_stop(exit_status=exit_status))
        uid = composed.start_doc["uid"]
        self.emitted[uid] = docs
        return uid


@pytest.fixture(autouse=True)
def views_apart() -> Iterator[None]:
    """Undo what the plugins' ``v1`` and ``v2`` do to all clients of a process."""
    yield
    from bluesky_tiled_plugins.clients.bluesky_run import BlueskyRun
    from tiled.client.container import DEFAULT_STRUCTURE_CLIENT_DISPATCH

    for dispatch in DEFAULT_STRUCTURE_CLIENT_DISPATCH.values():
        dispatch.set("BlueskyRun", lambda: BlueskyRun)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.db"


@pytest.fixture
def beamtime(path: Path) -> Iterator[Beamtime]:
    with Beamtime(path, sample="LaB6") as beamtime:
        yield beamtime


@pytest.fixture
def lab(beamtime: Beamtime) -> Lab:
    return Lab(beamtime)


@pytest.fixture
def connect(beamtime: Beamtime) -> Iterator[Callable[[], Any]]:
    """Give a client of Tiled for what is in the beamtime now, and later."""
    made: list[Any] = []

    def make() -> Any:
        made.append(beamtime.tiled())
        return made[-1]

    yield make
    for client in made:
        client.context.close()
