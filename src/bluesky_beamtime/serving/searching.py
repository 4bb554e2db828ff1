"""Searches by regular expressions, which end in time."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

from fastapi import HTTPException
from sqlalchemy import Boolean, ColumnElement, Connection, func
from sqlalchemy.exc import DBAPIError
from tiled.adapters.mapping import MapAdapter, iter_child_metadata
from tiled.queries import QueryValueError, Regex

from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.serving.untyped import regex

# There are short expressions that would take longer than a beamtime.
_SECONDS = 2.0
# Streams are searched between all other requests: nothing else can be answered.
_SECONDS_ALONE = 0.5
# Calls as short as this are free: there may be a million runs.
_FREE = 1e-4

_TOO_LONG = (
    "this regular expression takes too long; repetitions within repetitions do, such "
    "as (a+)+"
)


def pattern_of(query: Regex) -> str:
    """Return the regular expression of a query.

    Raises
    ------
    QueryValueError
        It is none.
    """
    pattern = query.pattern if query.case_sensitive else f"(?i){query.pattern}"
    try:
        regex.compile(pattern)
    except (regex.error, OverflowError) as error:
        raise QueryValueError(
            f"{query.pattern!r} is no regular expression: {error}"
        ) from error
    return pattern


def matches(text: ColumnElement[Any], query: Regex) -> ColumnElement[bool]:
    """Return "the expression is found in the text", for :func:`searching`.

    Raises
    ------
    QueryValueError
        It is no regular expression.
    """
    return func.beamtime_matches(pattern_of(query), text, type_=Boolean)


def with_matching(query: Regex, tree: MapAdapter[Any]) -> MapAdapter[Any]:
    """Return the nodes in whose metadata an expression is found.

    Raises
    ------
    QueryValueError
        It is no regular expression, or takes too long.
    """
    pattern, search = pattern_of(query), _Search(_SECONDS_ALONE)
    try:
        found = {
            key: node
            for key, node, value in iter_child_metadata(query.key, tree)
            if search(pattern, value)
        }
    except TimeoutError as error:
        raise QueryValueError(_TOO_LONG) from error
    return tree.new_variation(mapping=found)


@contextmanager
def searching(database: Database) -> Generator[Connection]:
    """Lend a connection that reads.

    Raises
    ------
    HTTPException
        A regular expression takes too long.
    DatabaseError
        The beamtime is closed, or the file is damaged.
    """
    search = _Search(_SECONDS)
    with database.reading() as connection:
        driver = cast("Any", connection.connection.driver_connection)
        driver.create_function("beamtime_matches", 2, search, deterministic=True)
        try:
            yield connection
        except DBAPIError as error:
            if search.left > 0:
                raise
            raise HTTPException(400, _TOO_LONG) from error


class _Search:
    """A function for SQL, with the seconds that are left for all of its calls."""

    def __init__(self, seconds: float) -> None:
        self.left = seconds

    def __call__(self, pattern: str, text: Any) -> bool:
        if not isinstance(text, str):
            return False
        started = time.thread_time()
        try:
            # Other threads go on meanwhile.
            found = regex.search(pattern, text, timeout=self.left, concurrent=True)
        except TimeoutError:
            self.left = 0.0
            raise
        self.left -= max(0.0, time.thread_time() - started - _FREE)
        if self.left <= 0:
            raise TimeoutError
        return found is not None
