"""A run and its streams as nodes of a Tiled tree."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import anyio.to_thread
from tiled.queries import Regex
from tiled.server.core import NoEntry
from tiled.structures.container import ContainerStructure
from tiled.structures.core import Spec, StructureFamily

from bluesky_beamtime.database import times
from bluesky_beamtime.database.decoding import decode
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.journaled import JournalIndex
from bluesky_beamtime.database.kinds import is_list
from bluesky_beamtime.database.liveness import is_alive
from bluesky_beamtime.database.runs import Run
from bluesky_beamtime.serving.fields import stream_nodes
from bluesky_beamtime.serving.names import apart
from bluesky_beamtime.serving.run_rows import RunRow
from bluesky_beamtime.serving.searching import with_matching
from bluesky_beamtime.serving.subscriptions import Unsubscribable

# Keys of a descriptor that its stream has elsewhere.
_ELSEWHERE = ("name", "run_start", "object_keys")


class Container(Unsubscribable, ABC):
    """A container whose few children are known by name.

    Attributes
    ----------
    specs : list of tiled.structures.core.Spec
        What clients make of it.
    """

    structure_family = StructureFamily.container
    must_revalidate = True
    access_tags = None
    # Tiled asks it when there is an access policy; None would be the root of a tree.
    node = SimpleNamespace(parent=True)
    specs: Sequence[Spec] = ()

    @abstractmethod
    def metadata(self) -> dict[str, Any]:
        """Return the metadata."""

    @abstractmethod
    def children(self) -> Mapping[str, Callable[[], Any]]:
        """Return what makes the child of each name."""

    def __dask_tokenize__(self) -> object:
        # Never the same: there may be more by the next request.
        return object()

    def search(self, query: Any) -> Any:
        """Return the children that fulfil a query of Tiled, as a mapping of theirs.

        Raises
        ------
        QueryValueError
            The query makes no sense here.
        """
        from tiled.adapters.mapping import MapAdapter

        found: dict[str, Any] = {name: make() for name, make in self.children().items()}
        tree = MapAdapter(found)
        if isinstance(query, Regex):
            return with_matching(query, tree)
        return tree.search(query)

    def structure(self) -> ContainerStructure:
        """Return the names of the children."""
        return ContainerStructure(keys=list(self.children()))

    @property
    def sorting(self) -> list[tuple[str, int]]:
        """In the order in which the children came to be."""
        return [("_", 1)]

    def sort(self, sorting: Sequence[tuple[str, int]]) -> Container:
        """Return the same children in another order; only ``_`` is known."""
        return _Reversed(self) if sorting and sorting[0][1] < 0 else self

    async def read(self, fields: Sequence[str] | None = None) -> Container:
        """Return the container itself, or some of its children."""
        return self if fields is None else _Some(self, fields)

    async def exact_len(self) -> int:
        """Return the number of children."""
        return len(await self._names())

    async def _names(self) -> list[str]:
        return await anyio.to_thread.run_sync(lambda: list(self.children()))

    async def lookup_adapter(self, segments: Sequence[str]) -> Any:
        """Return the node at a path below.

        Raises
        ------
        NoEntry
            There is none.
        """
        name, *rest = segments

        def find() -> Any:
            make = self.children().get(name)
            return None if make is None else make()

        child = await anyio.to_thread.run_sync(find)
        if child is None:
            raise NoEntry(segments)
        if not rest:
            return child
        if hasattr(child, "lookup_adapter"):
            return await child.lookup_adapter(rest)
        try:
            return child[rest[0]]
        except (KeyError, TypeError):
            raise NoEntry(segments) from None

    async def keys_range(self, offset: int = 0, limit: int | None = None) -> list[str]:
        """Return names of children."""
        names = await self._names()
        return names[offset : None if limit is None else offset + limit]

    async def items_range(
        self, offset: int = 0, limit: int | None = None
    ) -> list[tuple[str, Any]]:
        """Return children with their names."""

        def make() -> list[tuple[str, Any]]:
            items = list(self.children().items())
            chosen = items[offset : None if limit is None else offset + limit]
            return [(name, make()) for name, make in chosen]

        return await anyio.to_thread.run_sync(make)

    async def keys_page(
        self, cursor: int | None, limit: int
    ) -> tuple[list[str], int | None]:
        """Return names after a cursor, and the cursor of the next page."""
        offset = cursor or 0
        names = await self.keys_range(offset, limit + 1)
        return names[:limit], offset + limit if len(names) > limit else None

    async def items_page(
        self, cursor: int | None, limit: int
    ) -> tuple[list[tuple[str, Any]], int | None]:
        """Return children with their names after a cursor, and the next cursor."""
        offset = cursor or 0
        items = await self.items_range(offset, limit + 1)
        return items[:limit], offset + limit if len(items) > limit else None

    async def cursor_for_offset(self, offset: int) -> int | None:
        """Return the cursor of the page that begins at ``offset``."""
        return offset or None


class _Reversed(Container):
    def __init__(self, container: Container) -> None:
        self._container = container
        self.specs = container.specs

    def metadata(self) -> dict[str, Any]:
        return self._container.metadata()

    def children(self) -> Mapping[str, Callable[[], Any]]:
        return dict(reversed(list(self._container.children().items())))


class _Some(Container):
    def __init__(self, container: Container, names: Sequence[str]) -> None:
        self._container = container
        self._wanted = names
        self.specs = container.specs

    def metadata(self) -> dict[str, Any]:
        return self._container.metadata()

    def children(self) -> Mapping[str, Callable[[], Any]]:
        children = self._container.children()
        return {name: children[name] for name in self._wanted}


def local_time(moment: float | None) -> str | None:
    """Return seconds since 1970 as people write them."""
    return None if moment is None else times.local_time(moment)


class RunNode(Container):
    """A run: its documents are its metadata, its streams its children.

    Parameters
    ----------
    database
        The beamtime.
    journal
        Which runs have documents in the journal.
    row
        What the database says of it.
    """

    specs = (Spec("BlueskyRun", version="3.0"),)

    def __init__(self, database: Database, journal: JournalIndex, row: RunRow) -> None:
        self.uid = row.uid
        self.row_id = row.id
        self.row = row
        self.run = Run(database, row.uid, journal)

    @cached_property
    def _metadata(self) -> dict[str, Any]:
        row = self.row
        return {
            "start": decode(row.start),
            "stop": None if row.stop is None else decode(row.stop),
            "beamtime": {
                "sample": row.sample,
                "began": local_time(row.time_start),
                "status": self.status,
                "tags": row.tags,
                "starred": row.starred,
                "notes": row.notes,
                "frames": row.frames,
            },
        }

    @property
    def status(self) -> str:
        """How the run ended; ``running``, or ``interrupted`` by a crash."""
        row = self.row
        if row.exit_status is not None:
            return row.exit_status
        alive = is_alive(self.run.database.folder, row.writer)
        return "running" if alive else "interrupted"

    def metadata(self) -> dict[str, Any]:
        """Return the start and the stop document, and what the beamtime adds."""
        return self._metadata

    @property
    def access_tags(self) -> frozenset[str]:
        """Who may see it, as ``tiled_access_tags`` of the start document says."""
        tags = self._metadata["start"].get("tiled_access_tags")
        return frozenset(map(str, tags)) if is_list(tags) else frozenset()

    def children(self) -> Mapping[str, Callable[[], Any]]:
        """Return what makes each stream."""
        return {
            path: lambda name=name: StreamNode(self.run, name)
            for name, path in apart(self.row.streams).items()
        }


def _with_objects(descriptor: Mapping[str, Any]) -> dict[str, Any]:
    """Return data keys that name their devices, out of which clients make these."""
    keys = dict(descriptor["data_keys"])
    for device, names in descriptor.get("object_keys", {}).items():
        for name in names:
            if name in keys and "object_name" not in keys[name]:
                keys[name] = {**keys[name], "object_name": device}
    return keys


class StreamNode(Container):
    """A stream: a table of what its events hold, and an array for each camera.

    Parameters
    ----------
    run
        The run.
    name
        Name of the stream.
    """

    specs = (Spec("BlueskyEventStream", version="3.0"), Spec("composite"))

    def __init__(self, run: Run, name: str) -> None:
        self.stream = run[name]
        self.name = name

    @cached_property
    def _metadata(self) -> dict[str, Any]:
        first, *later = self.stream.descriptors
        metadata = {k: v for k, v in first.items() if k not in _ELSEWHERE}
        metadata["data_keys"] = _with_objects(first)
        if later:
            metadata["_config_updates"] = [
                {
                    key: descriptor[key]
                    for key in ("uid", "time", "configuration")
                    if key in descriptor
                }
                for descriptor in later
            ]
        return metadata

    def metadata(self) -> dict[str, Any]:
        """Return the descriptor, as the plugins for Bluesky expect it."""
        return self._metadata

    def children(self) -> Mapping[str, Callable[[], Any]]:
        """Return what makes the table and the arrays."""
        return stream_nodes(self.stream)
