"""What stands in the README of a folder that was taken home.

Its commands are about a run, a field and a file that are in the folder: they can be
pasted as they are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from bluesky_beamtime.beamtime import Beamtime
from bluesky_beamtime.database import Run
from bluesky_beamtime.database.external import stored_arrays
from bluesky_beamtime.errors import BeamtimeError, StoreReadError
from bluesky_beamtime.exports.manifest import MANIFEST_FILE
from bluesky_beamtime.storage import from_uri
from bluesky_beamtime.storage.layout import read_metadata

README = "README.txt"

_ZARR, _HDF5 = "application/x-zarr", "application/x-hdf5"
_LOOKED_AT = 50


@dataclass(frozen=True, slots=True)
class Facts:
    """What a README tells of its folder."""

    beamtime: Beamtime
    """The copy."""
    when: str
    """Date and time."""
    chosen: bool
    """Whether it holds some of the runs only."""
    exports: Sequence[str]
    """Names of exported files, relative to the folder."""
    problems: Sequence[str]
    """What is missing or damaged."""
    unfit: Sequence[str]
    """What a format that was asked for cannot hold."""


def readme_text(facts: Facts) -> str:
    """Return the README, in Markdown that reads well as plain text."""
    return "\n".join(_lines(facts)).rstrip() + "\n"


def _lines(facts: Facts) -> Iterator[str]:
    path = facts.beamtime.path
    stem = path.name.removesuffix(".db")
    count = len(facts.beamtime)
    some = "the chosen runs" if facts.chosen else "all runs"
    yield f"# {_plain(stem)}"
    yield ""
    yield f"{count} run{'' if count == 1 else 's'} of a Bluesky beamline ({some}),"
    yield f"copied on {facts.when}. Open `index.html` in any browser to look at them;"
    yield "nothing has to be installed, and no network is needed."
    yield ""
    contents = {
        "index.html, runs/": "the runs as pages, with plots and pictures",
        path.name: "all documents and numbers: an SQLite database",
        f"{stem}.zarr/": "frames and arrays: Zarr, version 3",
        f"{stem}_files/": "files that detectors wrote themselves",
        f"{stem}_outside/": "files that lay outside of the beamtime's folder",
        f"{stem}.journal.jsonl": "documents that are not in the database",
        "exports/": "runs in the formats of other programs",
        MANIFEST_FILE: "the SHA-256 of every file",
    }
    for name, what in contents.items():
        if name == MANIFEST_FILE or (path.parent / name.partition(",")[0]).exists():
            yield f"    {_plain(name)}  {what}"
    yield ""
    yield "Places in the database are relative to its folder: the folder can be moved"
    yield "and renamed as a whole. Whether all files are as they were copied, says"
    yield ""
    yield from _block("sh", f"sha256sum -c --quiet {MANIFEST_FILE}")
    if facts.problems:
        yield "## What is missing or damaged"
        yield ""
        for problem in facts.problems:
            yield f"- {_plain(problem)}"
        yield ""
    if facts.unfit:
        yield "## What a format cannot hold"
        yield ""
        yield "Nothing is missing by it: the data are in the other files."
        yield ""
        for told in facts.unfit:
            yield f"- {_plain(told)}"
        yield ""
    yield "## Reading it"
    yield ""
    yield "In this folder, with Python and the packages that are named."
    yield ""
    yield from _sqlite(facts.beamtime)
    yield from _arrays(facts)
    yield "With the package that recorded it (`pip install bluesky-beamtime`) all of it"
    yield "is an xarray.Dataset:"
    yield ""
    yield from _block(
        "pycon",
        ">>> from bluesky_beamtime import Beamtime",
        f'>>> beamtime = Beamtime({path.name!r}, mode="r")',
        ">>> beamtime[-1].primary.read()",
    )


def _block(language: str, *lines: str) -> Iterator[str]:
    yield f"```{language}"
    yield from lines
    yield "```"
    yield ""


def _plain(text: str) -> str:
    """Return text that stays in its line and means nothing to Markdown."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return line.replace("<", "‹").replace("`", "'")


# ----------------------------------------------------------------------------- examples


def _sqlite(beamtime: Beamtime) -> Iterator[str]:
    yield "### The runs and their numbers: sqlite3, which comes with Python"
    yield ""
    lines = [
        "import sqlite3",
        "",
        f"database = sqlite3.connect({beamtime.path.name!r})",
        'for row in database.execute("SELECT * FROM run_list LIMIT 10"):',
        "    print(*row)",
    ]
    found = next(_with_numbers(beamtime), None)
    if found is not None:
        run, stream, field = found
        lines += [
            "",
            "values = database.execute(",
            '    "SELECT seq_num, value FROM event_values"',
            '    " WHERE run_uid = ? AND stream = ? AND field = ? ORDER BY seq_num",',
            f"    ({run.uid!r}, {stream!r}, {field!r}),",
            ").fetchall()",
            "print(len(values), values[:3])",
        ]
    yield from _block("python", *lines, "database.close()")


def _arrays(facts: Facts) -> Iterator[str]:
    folder = facts.beamtime.path.parent
    arrays = list(_stored(facts.beamtime, _ZARR))
    if arrays:
        place = arrays[0]
        yield "### The frames: zarr (`pip install zarr`)"
        yield ""
        yield from _block(
            "python",
            "import zarr",
            "",
            f'frames = zarr.open_array({place!r}, mode="r")',
            "print(frames.shape, frames.dtype, frames.attrs.get('units'))",
            "print(frames[0].max())",
        )
        # In its group an array has the name of its folder, which is not always its key.
        places = map(os.path.split, arrays)
        for group, name in islice((p for p in places if is_dataset(folder / p[0])), 1):
            yield "### The same with coordinates: xarray (`pip install xarray zarr`)"
            yield ""
            yield from _block(
                "python",
                "import xarray",
                "",
                f"group = {group!r}",
                "dataset = xarray.open_zarr(group, consolidated=False, chunks=None)",
                f"print(dataset[{name!r}][0].mean().item())",
            )
        yield "Where all arrays are:"
        yield ""
        yield from _block(
            "python",
            "import sqlite3",
            "from urllib.parse import unquote",
            "",
            f"database = sqlite3.connect({facts.beamtime.path.name!r})",
            'query = "SELECT run_uid, data_key, uri FROM stream_resources"',
            "for run, key, uri in database.execute(query):",
            "    print(run, key, unquote(uri))",
            "database.close()",
        )
    hdf5 = next(
        (n for n in facts.exports if n.endswith((".nxs", ".h5", ".hdf5", ".nc"))), None
    )
    if hdf5 is None:
        files = _stored(facts.beamtime, _HDF5)
        hdf5 = next(files, None)
    if hdf5 is not None:
        yield "### HDF5 files: h5py (`pip install h5py hdf5plugin`)"
        yield ""
        yield from _block(
            "python",
            "import h5py",
            "",
            f"with h5py.File({hdf5!r}) as file:",
            "    file.visititems(lambda name, what: print(what))",
        )


def is_dataset(group: Path) -> bool:
    """Say whether the arrays of a Zarr group have lengths that fit together.

    They do not where one camera was faster, or got further before the end.
    """
    sizes: dict[str, int] = {}
    try:
        if read_metadata(group).get("node_type") != "group":
            return False
        for path in sorted(group.glob("*/zarr.json")):
            metadata = read_metadata(path.parent)
            names = metadata.get("dimension_names") or ()
            for name, size in zip(names, metadata.get("shape", ()), strict=False):
                if sizes.setdefault(name, size) != size:
                    return False
    except StoreReadError:
        return False
    return True


def _with_numbers(beamtime: Beamtime) -> Iterator[tuple[Run, str, str]]:
    """Yield runs, newest first, with a stream and a field that has values."""
    for run in beamtime.search().limit(_LOOKED_AT):
        for name, stream in run.streams.items():
            keys = _data_keys(stream)
            for field, key in keys.items():
                number = key.get("dtype") in ("number", "integer")
                if number and "external" not in key and stream.num_events:
                    yield run, name, field


def _data_keys(stream: Any) -> dict[str, dict[str, Any]]:
    try:
        return stream.data_keys
    except BeamtimeError:
        return {}


def _stored(beamtime: Beamtime, mimetype: str) -> Iterator[str]:
    """Yield the paths of frames that are in the folder."""
    folder = beamtime.path.parent
    for run in beamtime.search().limit(_LOOKED_AT):
        for array in stored_arrays(run.database, run.uid):
            if array.mimetype != mimetype:
                continue
            try:
                path = os.path.relpath(from_uri(array.uri), folder)
                if path.startswith("..") or not len(array.open()):
                    continue
            except (BeamtimeError, OSError, TypeError, ValueError):
                continue
            yield path
