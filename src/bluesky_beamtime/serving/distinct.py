"""Which values the keys of the runs' metadata have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import func

from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.fulltext import count_matching, matching
from bluesky_beamtime.serving.queries import RUN_SPEC, AnyCondition, place
from bluesky_beamtime.serving.searching import searching

_MOST = 10_000


def distinct(
    database: Database,
    conditions: Sequence[AnyCondition],
    keys: Sequence[str],
    *,
    structure_families: bool = False,
    specs: bool = False,
    counts: bool = False,
) -> dict[str, Any]:
    """Return values and, if asked for, how many runs have each.

    Parameters
    ----------
    database
        The beamtime.
    conditions
        The runs that count.
    keys
        Keys of the metadata, such as ``start.plan_name``.
    structure_families, specs
        Also those of the runs, which are all the same.
    counts
        Count the runs.

    Returns
    -------
    dict
        As Tiled answers it.
    """
    answer: dict[str, Any] = {}
    with searching(database) as connection:
        if keys:
            answer["metadata"] = {}
        for key in keys:
            at = place(key)
            number = func.count()
            query = (
                matching(
                    conditions, at.value.label("value"), at.kind.label("kind"), number
                )
                .where(at.kind.is_not(None))
                .group_by("value", "kind")
                .order_by(number.desc())
                .limit(_MOST)
            )
            answer["metadata"][key] = [
                {"value": _value(value, kind), "count": count if counts else None}
                for value, kind, count in connection.execute(query)
            ]
        if structure_families or specs:
            total = connection.execute(count_matching(conditions)).scalar_one()
            count = total if counts else None
            if structure_families:
                answer["structure_families"] = _one("container", count, total)
            if specs:
                spec = [{"name": RUN_SPEC, "version": "3.0"}]
                answer["specs"] = _one(spec, count, total)
    return answer


def _one(value: Any, count: int | None, total: int) -> list[dict[str, Any]]:
    return [{"value": value, "count": count}] if total else []


def _value(value: Any, kind: str) -> Any:
    if kind in ("true", "false"):
        return kind == "true"
    return orjson.loads(value) if kind in ("array", "object") else value
