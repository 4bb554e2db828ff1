"""Labels that people put on runs afterwards: tags and stars."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, delete, select, update
from sqlalchemy.dialects import sqlite

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.fulltext import clean
from bluesky_beamtime.errors import DocumentError

_tags, _runs = schema.run_tags, schema.runs


def check_tags(tags: Iterable[object]) -> list[str]:
    """Return tags as they are stored.

    Raises
    ------
    DocumentError
        There is none, or one that is no text.
    """
    checked: list[str] = []
    for tag in tags:
        if not isinstance(tag, str) or not tag.strip():
            raise DocumentError(f"a tag is text, such as 'good', not {tag!r:.80}")
        checked.append(clean(tag.strip()))
    if not checked:
        raise DocumentError("give a tag, such as 'good'")
    return checked


def read_tags(connection: Connection, run_uid: str) -> list[str]:
    """Return the tags of a run, sorted."""
    query = select(_tags.c.tag).where(_tags.c.run_uid == run_uid)
    return sorted(connection.execute(query).scalars())


def add_tags(connection: Connection, run_uid: str, tags: Iterable[str]) -> None:
    """Tag a run; tags that it has already are kept."""
    for tag in tags:
        connection.execute(
            sqlite.insert(_tags)
            .values(run_uid=run_uid, tag=tag)
            .on_conflict_do_nothing()
        )


def remove_tags(connection: Connection, run_uid: str, tags: Iterable[str]) -> None:
    """Take tags away; one that is not there is not missed."""
    connection.execute(
        delete(_tags).where(_tags.c.run_uid == run_uid, _tags.c.tag.in_(list(tags)))
    )


def set_star(connection: Connection, run_uid: str, starred: bool) -> None:
    """Give a run a star, or take it away."""
    connection.execute(
        update(_runs).where(_runs.c.uid == run_uid).values(starred=int(starred))
    )


def has_star(connection: Connection, run_uid: str) -> bool:
    """Say whether a run has a star."""
    query = select(_runs.c.starred).where(_runs.c.uid == run_uid)
    return bool(connection.execute(query).scalar())
