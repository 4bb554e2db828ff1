"""Runs of every kind, and what each of their fields holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import event_model
import numpy as np

from bluesky_beamtime.storage import HDF5Writer, ZarrWriter


@dataclass
class Column:
    """One field as it was emitted."""

    rows: dict[int, Any] = field(default_factory=dict[int, Any])
    """Values by ``seq_num``; of one that was repeated the last."""
    units: str | None = None
    frames: bool = False
    """Whether tables leave it out."""


@dataclass
class Kind:
    """One run as it was emitted: streams, their fields, their times."""

    uid: str
    streams: dict[str, dict[str, Column]] = field(
        default_factory=dict[str, dict[str, Column]]
    )
    times: dict[str, dict[int, float]] = field(
        default_factory=dict[str, dict[int, float]]
    )


Frames = Mapping[str, tuple[np.ndarray, int, Any]]
"""By data key: what is streamed, frames of an event, the writer."""
NO_FRAMES: Frames = {}


class Emitter:
    """Emits the documents of a run, and remembers what was in them."""

    def __init__(self, beamtime: Any, folder: Path, **metadata: Any) -> None:
        self._beamtime, self._folder = beamtime, folder
        self._run = event_model.compose_run(
            metadata={"plan_name": "any", **metadata}, validate=False
        )
        self.kind = Kind(self._run.start_doc["uid"])
        beamtime("start", self._run.start_doc)

    def describe(
        self,
        name: str,
        keys: Mapping[str, Mapping[str, Any]],
        frames: Frames = NO_FRAMES,
    ) -> Any:
        """Emit a descriptor; each field is an object of its own."""
        data_keys = {
            key: {"source": "sim", "dtype": "number", "shape": [], **more}
            for key, more in keys.items()
        }
        for key, (values, each, _) in frames.items():
            inner = list(values.shape[1:])
            data_keys[key] = {
                "source": "sim",
                "dtype": "array",
                "shape": [each, *inner],
                "dtype_numpy": values.dtype.str,
                "external": "STREAM:",
                "units": "counts",
                **keys.get(key, {}),
            }
        stream = self._run.compose_descriptor(
            name=name,
            data_keys=data_keys,
            hints={},
            configuration={},
            object_keys={key: [key] for key in data_keys},
            validate=False,
        )
        self._beamtime("descriptor", stream.descriptor_doc)
        columns = self.kind.streams.setdefault(name, {})
        self.kind.times.setdefault(name, {})
        for key, data_key in data_keys.items():
            column = columns.setdefault(key, Column())
            column.units = data_key.get("units")
        for key, told in frames.items():
            self._stream(name, stream, columns[key], key, told)
        return stream

    def _stream(
        self, name: str, stream: Any, column: Column, key: str, told: Any
    ) -> None:
        values, each, writer_type = told
        column.frames = values.ndim > 2
        store = f"{self.kind.uid}-{name}-{key}"
        writer = writer_type.get(store)
        writer.set_uri(str(self._folder / store))
        sink = writer.prepare("cam", key, values.dtype, values.shape[1:])
        writer.kickoff()
        sink.write_many(values)
        count = len(values) // each
        for kind, document in writer.collect_stream_docs("cam", count):
            more: dict[str, Any] = {"run_start": self.kind.uid}
            if kind == "stream_datum":
                uid = stream.descriptor_doc["uid"]
                more = {"descriptor": uid, "seq_nums": {"start": 1, "stop": count + 1}}
            self._beamtime(kind, {**document, **more})
        sink.close()
        writer_type.release(store)
        for row in range(count):
            these = values[row * each : (row + 1) * each]
            column.rows[row + 1] = these if each > 1 else these[0]

    def event(
        self,
        name: str,
        stream: Any,
        data: Mapping[str, Any],
        seq_num: int | None = None,
        filled: Any = None,
    ) -> None:
        """Emit an event."""
        document = stream.compose_event(
            data=dict(data),
            timestamps=dict.fromkeys(data, 5.0),
            filled=filled or {},
            validate=False,
            **({} if seq_num is None else {"seq_num": seq_num}),
        )
        self._beamtime("event", document)
        number = document["seq_num"]
        self.kind.times[name][number] = document["time"]
        for key, value in data.items():
            column = self.kind.streams[name][key]
            column.rows[number] = value
            column.frames = column.frames or np.ndim(value) > 1

    def table(self, name: str, keys: Any, rows: Sequence[Mapping[str, Any]]) -> None:
        """Emit a stream that is whole."""
        stream = self.describe(name, keys)
        for row in rows:
            self.event(name, stream, row)

    def stop(self, **how: Any) -> Kind:
        """End the run."""
        self._beamtime("stop", self._run.compose_stop(**how))
        return self.kind


X = {"x": {"units": "mm"}}
ROWS = [{"x": 0.1}, {"x": 1 / 3}, {"x": -2.5e300}]
RANDOM = np.random.default_rng(5)


def going_on(b: Any, d: Path) -> Kind:
    run = Emitter(b, d)
    run.table("primary", X, ROWS)
    return run.kind


def only_begun(b: Any, d: Path) -> Kind:
    return Emitter(b, d).kind


def empty(b: Any, d: Path) -> Kind:
    return Emitter(b, d).stop()


def no_events(b: Any, d: Path) -> Kind:
    run = Emitter(b, d)
    run.table("primary", X, ROWS)
    run.describe("dark", {"y": {"units": "V"}, "word": {"dtype": "string"}})
    return run.stop()


def only_no_events(b: Any, d: Path) -> Kind:
    run = Emitter(b, d)
    run.describe("primary", X)
    return run.stop()


def failed(b: Any, d: Path) -> Kind:
    run = Emitter(b, d)
    run.table("primary", X, ROWS[:1])
    return run.stop(exit_status="fail", reason="the beam\nis away")


def several_streams(b: Any, d: Path) -> Kind:
    run = Emitter(b, d)
    base = run.describe("baseline", X)
    run.event("baseline", base, {"x": 1.0})
    main = run.describe("primary", {**X, "n": {"dtype": "integer"}})
    monitor = run.describe("n_monitor", {"n": {"dtype": "integer"}})
    for number in range(5):
        run.event("n_monitor", monitor, {"n": number})
        if number % 2:
            run.event("primary", main, {"x": number / 3, "n": number})
    run.event("baseline", base, {"x": 2.0})
    return run.stop()


def values(b: Any, d: Path) -> Kind:
    """All that JSON and NumPy know, a field for each kind of value."""
    nan, inf = float("nan"), float("inf")
    columns: dict[str, tuple[str, list[Any]]] = {
        "float": ("number", [nan, inf, -inf, 5e-324]),
        "minus_zero": ("number", [-0.0, 0.0, 1.0, 1e22]),
        "int": ("integer", [-(2**63), 2**63 - 1, 0, -1]),
        "unsigned": ("integer", [2**64 - 1, 0, 1, 2**63]),
        "huge": ("integer", [2**70, -(2**70), 0, 1]),
        "mixed": ("number", [2**60 + 1, 0.5, nan, 1]),
        "bool": ("boolean", [True, False, True, True]),
        "complex": ("number", [1 + 2j, complex(nan, 1), 0j, -1j]),
        "none": ("number", [None, 1.0, None, 2.0]),
        "text": ("string", ["grün", "", 'a,"b"\nc', "=1+1"]),
        "odd_text": ("string", ["a\0b", "tail\0", "_x0041_", "\x07 \r"]),
        "half_text": ("string", ["\ud83d", "b", "c \ude00", "d"]),
        "long_text": ("string", ["x" * 500, "y", "", " "]),
        "list": ("array", [[1, 2], [3, 4], [5, 6], [7, 8]]),
        "ragged": ("array", [[1], [], [1, 2, 3], [4.5]]),
        "texts": ("array", [["a", "b"], ["c", ""], ["", ""], ["ü", "e"]]),
        "mapping": ("array", [{"a": 1}, {}, {"b": [nan]}, {"$c": "d"}]),
        "spectrum": ("array", list(RANDOM.random((4, 6)))),
        "short": ("array", list(RANDOM.random((4, 3)).astype("f2"))),
        "big_endian": ("array", list(np.arange(12, dtype=">i4").reshape(4, 3))),
        "flags": ("array", list(RANDOM.random((4, 3)) > 0.5)),
        "waves": ("array", list(RANDOM.random((4, 3)) * 1j)),
        "lengths": ("array", [np.arange(n) for n in (3, 1, 4, 2)]),
    }
    run = Emitter(b, d)
    keys = {key: {"dtype": dtype} for key, (dtype, _) in columns.items()}
    rows = [{key: told[1][n] for key, told in columns.items()} for n in range(4)]
    run.table("primary", keys, rows)
    return run.stop()


HOSTILE = [
    "a/b",
    "a_b",
    "A_B",
    "../up",
    "..",
    ".hidden",
    "a.b",
    "grün µ",
    "time",
    "seq_num",
    "time_value",
    "seq_num_value",
    "seq_num_value_",
    "a b",
    "a,b",
    'a"b',
    "a\nb",
    "a\tb",
    "nul\0",
    "=1+1",
    "[x]:*?",
    "1st",
    "CLASS",
    "x" * 300,
    "ü" * 300,
    "$ref",
    "time_unit",
    "__proto__",
]


def hostile_names(b: Any, d: Path) -> Kind:
    names = HOSTILE
    run = Emitter(b, d, CLASS="odd", coordinates="none", **{"a/b": 1, "a_b": 2})
    keys = {name: {"units": "µm/s"} for name in names}
    for stream in ("../evil", "A/b", "a_b", "run", "s" * 300):
        mine = keys if stream == "../evil" else X
        run.table(stream, mine, [dict.fromkeys(mine, 0.5), dict.fromkeys(mine, 1.5)])
    return run.stop()


def absent_values(b: Any, d: Path) -> Kind:
    """Two descriptors of one stream, the second with another field."""
    run = Emitter(b, d)
    one = run.describe("primary", {**X, "n": {"dtype": "integer"}})
    run.event("primary", one, {"x": 1.5, "n": 1})
    run.event("primary", one, {"x": 2.5, "n": 2})
    two = run.describe("primary", {**X, "word": {"dtype": "string"}})
    run.event("primary", two, {"x": 3.5, "word": "late"}, seq_num=3)
    return run.stop()


def repeated(b: Any, d: Path) -> Kind:
    """An event that was taken again after a pause."""
    run = Emitter(b, d)
    stream = run.describe("primary", X)
    for seq_num, x in ((1, 1.0), (2, 2.0), (2, 2.5), (3, 3.0)):
        run.event("primary", stream, {"x": x}, seq_num=seq_num)
    return run.stop()


def cameras(b: Any, d: Path) -> Kind:
    """Several cameras; one frame an event, three, and arrays in the events."""
    run = Emitter(b, d)
    frames: Frames = {
        "one": (RANDOM.integers(0, 65535, (4, 6, 5), "u2"), 1, ZarrWriter),
        "three": (RANDOM.random((12, 4, 3)).astype("f4"), 3, HDF5Writer),
        "deep": (RANDOM.integers(-9, 9, (4, 2, 3, 4), "i4"), 1, ZarrWriter),
    }
    keys = {**X, "map": {"dtype": "array", "units": "cps"}}
    stream = run.describe("primary", keys, frames)
    for number in range(4):
        maps = RANDOM.integers(0, 255, (3, 2), "u1")
        run.event("primary", stream, {"x": number / 7, "map": maps})
    return run.stop()


def only_frames(b: Any, d: Path) -> Kind:
    """A fly scan: no events at all, frames and a number for each."""
    run = Emitter(b, d)
    frames: Frames = {
        "cam": (RANDOM.integers(0, 9, (5, 3, 4), "u1"), 1, ZarrWriter),
        "cam_time": (np.arange(5.0) + 100, 1, ZarrWriter),
        "at": (RANDOM.random(5), 1, HDF5Writer),
    }
    run.describe("primary", {"at": {"coordinate_of": "cam", "units": "mm"}}, frames)
    return run.stop()


def cut_off(b: Any, d: Path) -> Kind:
    """One camera got further than the events, the other not so far; no stop."""
    run = Emitter(b, d)
    frames: Frames = {
        "far": (RANDOM.integers(0, 9, (6, 3, 4), "u2"), 1, ZarrWriter),
        "near": (RANDOM.integers(0, 9, (2, 4, 3), "u2"), 1, ZarrWriter),
        "near_n": (np.arange(2), 1, ZarrWriter),
    }
    stream = run.describe("primary", X, frames)
    for row in ROWS:
        run.event("primary", stream, row)
    return run.kind


def pixels(b: Any, d: Path) -> Kind:
    """A camera for each type of pixel."""
    run = Emitter(b, d)
    frames: Frames = {
        f"as_{name}": (RANDOM.integers(0, 2, (2, 3, 4)).astype(name), 1, ZarrWriter)
        for name in ("bool", "i1", "u8", "i8", "f2", "f8")
    }
    frames["as_u8"][0][0, 0, 0] = 2**64 - 1
    run.describe("primary", {}, frames)
    return run.stop()


def digitizer(b: Any, d: Path) -> Kind:
    """Blocks of samples, channels by samples, with dimensions and their times."""
    run = Emitter(b, d)
    blocks = RANDOM.integers(-(2**15), 2**15, (3, 2, 50)).astype("i2")
    dims = ["adc_channel", "adc_sample"]
    step = {"adc_time": {"dim": "adc_sample", "start": 0.0, "step": 1e-6, "units": "s"}}
    keys = {"adc": {"dims": dims, "coordinates": step, "units": "V"}}
    run.describe("primary", keys, {"adc": (blocks, 1, ZarrWriter)})
    return run.stop()


def asset_of_old(b: Any, d: Path) -> Kind:
    """Frames that a detector wrote the old way: events have the ids of datums."""
    run = Emitter(b, d)
    camera = {"dtype": "array", "shape": [4, 5], "external": "OLD:"}
    stream = run.describe("primary", {**X, "img": camera})
    resource = run._run.compose_resource(  # pyright: ignore[reportPrivateUsage]
        spec="AD_HDF5",
        root=str(d),
        resource_path="img.h5",
        resource_kwargs={"frame_per_point": 1},
    )
    b("resource", resource.resource_doc)
    for number in range(3):
        datum = resource.compose_datum(datum_kwargs={"point_number": number})
        b("datum", datum)
        data = {"x": number / 3, "img": datum["datum_id"]}
        run.event("primary", stream, data, filled={"img": False})
    return run.stop()


KINDS: dict[str, Callable[[Any, Path], Kind]] = {
    make.__name__: make
    for make in (
        going_on,
        only_begun,
        empty,
        no_events,
        only_no_events,
        failed,
        several_streams,
        values,
        hostile_names,
        absent_values,
        repeated,
        cameras,
        only_frames,
        cut_off,
        pixels,
        digitizer,
        asset_of_old,
    )
}
