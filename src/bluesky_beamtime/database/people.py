"""People: who measured, and with which role in a run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.dialects import sqlite

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.fulltext import clean
from bluesky_beamtime.database.kinds import is_integer, is_mapping, shown
from bluesky_beamtime.errors import DocumentError

_ORCID = re.compile(
    r"(?:https?://)?(?:www\.)?(?:orcid\.org/)?(\d{4})-?(\d{4})-?(\d{4})-?(\d{3}[\dXx])/?"
)
_people, _links = schema.people, schema.run_people


@dataclass
class Person:
    """Somebody who measures; known by the ORCID, else by the name."""

    name: str
    """Name, as people say it."""
    email: str | None = None
    """Where to write to."""
    orcid: str | None = None
    """ORCID iD, ``0000-0002-1825-0097``; a URL is accepted too."""
    affiliation: str | None = None
    """Where the person works."""
    role: str | None = None
    """Role in a run, such as ``user``, ``operator``, ``local contact``."""
    id: int | None = None
    """Number of the row, set when it is stored."""

    def __post_init__(self) -> None:
        """Check what was given.

        Raises
        ------
        DocumentError
            No name, or an ORCID whose check digit is wrong.
        """
        name: object = self.name
        if not isinstance(name, str) or not name.strip():
            raise DocumentError(f"a person needs a name, not {shown(name)}")
        self.name = clean(name.strip())
        if self.email is not None:
            self.email = clean(self.email)
        if self.orcid is not None:
            self.orcid = check_orcid(self.orcid)

    @classmethod
    def of(cls, value: Person | Mapping[str, Any] | str) -> Person:
        """Make one from a name, from a mapping, or from another one.

        A name may be followed by an ORCID or an e-mail address:
        ``"Ada Lovelace <0000-0002-1825-0097>"``.

        Raises
        ------
        DocumentError
            There is nothing that could be a name, or the ORCID is wrong.
        """
        if isinstance(value, Person):
            return value
        if isinstance(value, str):
            return cls(**_parse(value))
        if not is_mapping(value):
            raise DocumentError(
                f"a person is a name, a mapping or a Person, not {shown(value)}"
            )
        given: dict[str, Any] = {str(key).lower(): item for key, item in value.items()}
        if "name" not in given:
            names = (given.get(key) for key in _NAMES)
            given["name"] = " ".join(str(name) for name in names if name)
        known = {f.name for f in fields(cls)} - {"id"}
        texts: dict[str, Any] = {"name": ""}
        for key, item in given.items():
            if key in known and item:
                texts[key] = clean(str(item))
        return cls(**texts)


# What other systems call the parts of a name, and the account of a computer.
_NAMES = ("first_name", "given_name", "last_name", "family_name", "username")


def _parse(text: str) -> dict[str, Any]:
    before, bracket, inside = text.strip().removesuffix(">").partition("<")
    if not bracket or not before.strip():
        return {"name": text}
    kind = "email" if "@" in inside else "orcid"
    return {"name": before, kind: inside.strip()}


# ------------------------------------------------------------------------------ ORCID


def check_orcid(text: str) -> str:
    """Return an ORCID iD as ``0000-0002-1825-0097``.

    Raises
    ------
    DocumentError
        It is none, or its check digit is wrong.
    """
    match = _ORCID.fullmatch(text.strip())
    if match is None:
        raise DocumentError(
            f"{text!r:.80} is no ORCID iD; one looks like 0000-0002-1825-0097"
        )
    digits = "".join(match.groups()).upper()
    expected = _check_digit(digits[:-1])
    if digits[-1] != expected:
        raise DocumentError(
            f"the ORCID iD {text!r} is mistyped: its last character would be "
            f"{expected}, not {digits[-1]}"
        )
    return "-".join(digits[start : start + 4] for start in range(0, 16, 4))


def find_orcid(text: str) -> str | None:
    """Return the ORCID iD that a text is, None if it is none."""
    try:
        return check_orcid(text)
    except DocumentError:
        return None


def _check_digit(digits: str) -> str:
    """Return the check character of ISO 7064 MOD 11-2."""
    total = 0
    for digit in digits:
        total = (total + int(digit)) * 2
    rest = (12 - total % 11) % 11
    return "X" if rest == 10 else str(rest)


# -------------------------------------------------------------------- start documents


def people_of(start: Mapping[str, Any]) -> tuple[list[Person], list[str]]:
    """Return the people that a start document names, and what is wrong with some.

    ``operator`` is one, ``users`` or ``user`` one or several. A person whose ORCID is
    wrong is kept without it; who has no name is left out.
    """
    found: list[Person] = []
    wrong: list[str] = []
    for key, role in (("operator", "operator"), ("users", "user"), ("user", "user")):
        for value in one_or_several(start.get(key)):
            try:
                person = Person.of(value)
            except ValueError as error:
                wrong.append(str(error))
                try:
                    person = Person.of(_without_orcid(value))
                except ValueError:
                    continue
            person.role = person.role or role
            found.append(person)
    return found, wrong


def one_or_several(value: Any) -> Iterable[Any]:
    """Return the people that a user or a document names, whatever they look like."""
    if not value:
        return ()
    if isinstance(value, (str, Person)) or is_mapping(value):
        return (value,)
    if isinstance(value, (list, tuple, set, frozenset)):
        return cast("Iterable[Any]", value)
    return (value,)


def _without_orcid(value: Any) -> Any:
    if is_mapping(value):
        return {k: v for k, v in value.items() if str(k).lower() != "orcid"}
    return value.partition("<")[0] if isinstance(value, str) else value


_PROPOSAL_KEYS = ("proposal_id", "proposal_num", "number", "id", "name", "title")


def proposal_of(value: Any) -> str | None:
    """Return the number or name of a proposal as text, None if there is none."""
    if is_mapping(value):
        value = next((value[key] for key in _PROPOSAL_KEYS if value.get(key)), None)
    if isinstance(value, str):
        return clean(value) or None
    # Python refuses to print integers of more than 4300 digits.
    short = is_integer(value) and abs(int(value)) < 2**64
    return str(int(value)) if short else None


# --------------------------------------------------------------------------- the table


def upsert_person(connection: Connection, person: Person) -> int:
    """Store a person and return the number of the row.

    The same ORCID is the same person, else the same name where not two different
    ORCIDs are known. What is given replaces what is stored; the rest stays.

    Parameters
    ----------
    connection
        Inside a transaction that writes.
    person
        The person; the ``id`` is set.
    """
    keys = ("name", "email", "orcid", "affiliation")
    given = {key: getattr(person, key) for key in keys if getattr(person, key)}
    number = _find(connection, person)
    if number is None:
        result = connection.execute(insert(_people).values(given))
        number = cast("int", result.inserted_primary_key[0])  # pyright: ignore
    else:
        statement = update(_people).where(_people.c.id == number)
        connection.execute(statement.values(given))
    person.id = int(number)
    return person.id


def _find(connection: Connection, person: Person) -> int | None:
    if person.orcid is not None:
        query = select(_people.c.id).where(_people.c.orcid == person.orcid)
        known = connection.execute(query).scalar()
        if known is not None:
            return known
    query = select(_people.c.id).where(_people.c.name == person.name)
    if person.orcid is not None:
        query = query.where(_people.c.orcid.is_(None))
    return connection.execute(query.order_by(_people.c.id.desc()).limit(1)).scalar()


def link_person(
    connection: Connection, run_uid: str, person_id: int, role: str | None
) -> None:
    """Say that a person took part in a run; what was said before stays."""
    connection.execute(
        sqlite.insert(_links)
        .values(run_uid=run_uid, person_id=person_id, role=role)
        .on_conflict_do_nothing()
    )


def people_of_run(connection: Connection, run_uid: str) -> list[Person]:
    """Return who took part in a run, in the order in which it was said."""
    query = (
        select(_people, _links.c.role)
        .join(_links, _links.c.person_id == _people.c.id)
        .where(_links.c.run_uid == run_uid)
        .order_by(_people.c.id)
    )
    return [Person(**row) for row in connection.execute(query).mappings()]


def all_people(connection: Connection) -> list[Person]:
    """Return everybody who is known, in the order in which they came."""
    query = select(_people).order_by(_people.c.id)
    return [Person(**row) for row in connection.execute(query).mappings()]
