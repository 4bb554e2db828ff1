"""What is told of a run beside its documents: proposal, people, and its text.

Written in the transaction that stores the start document, so that a run is found from
its first moment on. Proposal and people of a beamtime hold for every run that starts,
in whatever process, until they are changed; the start document has the last word.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, delete, select, update
from sqlalchemy.dialects import sqlite

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.decoding import decode
from bluesky_beamtime.database.encoding import encode
from bluesky_beamtime.database.people import (
    Person,
    link_person,
    people_of,
    proposal_of,
    upsert_person,
)
from bluesky_beamtime.database.texts import store_text
from bluesky_beamtime.errors import DocumentError

_meta, _runs, _people = schema.meta, schema.runs, schema.people
_PROPOSAL, _USERS = "proposal", "users"


def store_facts(
    connection: Connection, run_uid: str, start: Mapping[str, Any]
) -> list[str]:
    """Store what a start document and the beamtime tell of a run.

    Parameters
    ----------
    connection
        Inside the transaction that stores the start document, after it and its tags.
    run_uid
        Uid of the run.
    start
        The start document.

    Returns
    -------
    list of str
        What is wrong with the people that it names, for a warning.
    """
    proposal = proposal_of(start.get("proposal")) or read_proposal(connection)
    if proposal is not None:
        statement = update(_runs).where(_runs.c.uid == run_uid)
        connection.execute(statement.values(proposal=proposal))
    people, wrong = people_of(start)
    for person in people:
        number = upsert_person(connection, person)
        link_person(connection, run_uid, number, person.role)
    if not any(person.role != "operator" for person in people):
        for person in read_users(connection):
            assert person.id is not None
            link_person(connection, run_uid, person.id, person.role)
    store_text(connection, run_uid, start)
    return wrong


# ------------------------------------------------------------------- of the beamtime


def read_proposal(connection: Connection) -> str | None:
    """Return the proposal of the runs that start from now on."""
    stored = _read(connection, _PROPOSAL)
    return None if stored is None else str(stored)


def write_proposal(connection: Connection, value: Any) -> None:
    """Set the proposal of the runs that start from now on; None for none.

    Raises
    ------
    DocumentError
        It is no proposal.
    """
    proposal = proposal_of(value)
    if proposal is None and value is not None:
        raise DocumentError(
            f"a proposal is a number or a name, such as 'cm40123-2', not {value!r:.80}"
        )
    _write(connection, _PROPOSAL, proposal)


def read_users(connection: Connection) -> list[Person]:
    """Return the people of the runs that start from now on, with their roles."""
    stored: Any = _read(connection, _USERS) or []
    roles = {entry["person_id"]: entry["role"] for entry in stored}
    query = select(_people).where(_people.c.id.in_(list(roles)))
    rows = connection.execute(query).mappings()
    found: dict[int, Any] = {row["id"]: row for row in rows}
    return [
        Person(**found[number], role=role)
        for number, role in roles.items()
        if number in found
    ]


def write_users(connection: Connection, people: Iterable[Person]) -> None:
    """Set the people of the runs that start from now on."""
    stored = [
        {"person_id": upsert_person(connection, person), "role": person.role or "user"}
        for person in people
    ]
    _write(connection, _USERS, stored or None)


def _read(connection: Connection, key: str) -> Any:
    stored = connection.execute(
        select(_meta.c.value).where(_meta.c.key == key)
    ).scalar()
    return None if stored is None else decode(stored)


def _write(connection: Connection, key: str, value: Any) -> None:
    if value is None:
        connection.execute(delete(_meta).where(_meta.c.key == key))
        return
    statement = sqlite.insert(_meta).values(key=key, value=encode(value))
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["key"], set_={"value": statement.excluded.value}
        )
    )
