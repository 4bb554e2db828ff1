"""Runs and streams as JSON: what there is, with the metadata of each part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio.to_thread

from bluesky_beamtime.serving.fields import EventTable, FieldArray
from bluesky_beamtime.serving.untyped import safe_json_dump, serialization_registry

if TYPE_CHECKING:
    from bluesky_beamtime.serving.run import Container

MEDIA_TYPE = "application/json"


def register() -> None:
    """Make runs and streams exportable from servers in this process."""
    for spec in ("BlueskyRun", "BlueskyEventStream"):
        serialization_registry.register(spec, MEDIA_TYPE, export)


async def export(
    media_type: str, node: Container, metadata: Any, filter_for_access: Any
) -> bytes:
    """Return, as Tiled does, ``metadata`` and ``contents`` of each node and column.

    Notes
    -----
    Tiled itself looks every column up by its path, and answers nobody meanwhile.
    """
    await filter_for_access(node)
    return await anyio.to_thread.run_sync(lambda: safe_json_dump(_described(node)))


def _described(node: Any) -> dict[str, Any]:
    return {"contents": _contents(node), "metadata": dict(node.metadata())}


def _contents(node: Any) -> dict[str, Any]:
    if isinstance(node, FieldArray):
        return {}
    if isinstance(node, EventTable):
        known = node.metadata()
        return {
            column: {"contents": {}, "metadata": known.get(column, {})}
            for column in node.structure().columns
        }
    return {name: _described(make()) for name, make in node.children().items()}
