"""One pass over a file, which brings a server up to it.

=============  ========================================================================
step           what comes to the server
=============  ========================================================================
heads          nothing: the newest numbers of all feeds are taken down, of one moment
parents        samples, people, runs, streams, resources of all that has changed, so
               that what refers to them can come; runs as if they were still going on
rows           events, image references, datums, page by page, up to the heads
finish         runs as they are, with their end, tags, notes, texts and columns, of all
               that has changed up to the heads and not since
=============  ========================================================================

A run's end is copied after all its documents, so that who sees it sees all. Each page
is one transaction with the position up to which it reaches: what is there is there
once, whatever dies in between.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import orjson
from sqlalchemy import (
    Connection,
    Table,
    and_,
    bindparam,
    delete,
    exists,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy import (
    cast as sql_cast,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.replica import tables
from bluesky_beamtime.database.replica.feed import ROW_FEEDS, Feed, Row, RowFeed
from bluesky_beamtime.database.replica.places import Places
from bluesky_beamtime.errors import ServerError
from bluesky_beamtime.storage import quote_name

logger = logging.getLogger(__name__)

_PAGE = 200
_PARENTS, _FINISH = "parents", "finish"
# What becomes of a run only at its end.
_END = ("time_stop", "exit_status", "num_events", "stop", "stop_ordinal")


class Copier:
    """Brings one server up to one file; for one thread and one connection.

    Parameters
    ----------
    feed
        What is new in the file.
    source
        What the file is called at the far end.
    places
        Where its frames are for readers of the server.
    lend
        Lends a connection inside a transaction: a context manager.
    """

    def __init__(
        self,
        feed: Feed,
        source: str,
        places: Places,
        lend: Callable[..., Any],
        goes_on: Callable[[], bool],
    ) -> None:
        self._feed = feed
        self._source = source
        self._places = places
        self._lend = lend
        self._goes_on = goes_on
        self._positions: dict[str, tuple[int, str | None]] | None = None
        self.copied = 0
        self.refused = 0

    def forget(self) -> None:
        """Ask the server anew how far it is."""
        self._positions = None

    def behind(self) -> int:
        """Return how many rows and changes the server lacks, as far as known."""
        positions = self._positions
        if positions is None:
            return -1
        heads = self._feed.heads()
        changes = self._feed.count("changes", self._at(_FINISH), heads["changes"])
        return changes + sum(
            max(0, heads[feed.table] - self._at(feed.table)) for feed in ROW_FEEDS
        )

    def run(self) -> bool:
        """Go once over the file; return False if it was told to stop on the way.

        Raises
        ------
        SQLAlchemyError
            The server is away; what was committed there is there.
        """
        if self._positions is None:
            self._load_positions()
        self._check_anchors()
        heads = self._feed.heads()
        steps: list[Callable[[], bool]] = [self._parents]
        for feed in ROW_FEEDS:
            steps.append(lambda feed=feed: self._page(feed, heads[feed.table]))
        steps.append(lambda: self._finish(heads["changes"]))
        for step in steps:
            while step():
                if not self._goes_on():
                    return False
        return True

    # ------------------------------------------------------------------- positions

    def _at(self, feed: str) -> int:
        return (self._positions or {}).get(feed, (0, None))[0]

    def _load_positions(self) -> None:
        table = tables.positions
        query = select(table.c.feed, table.c.position, table.c.anchor).where(
            table.c.source == self._source
        )
        with self._lend() as connection:
            if self._register(connection):
                # The frames are somewhere else now: look at every run once more.
                connection.execute(
                    delete(table).where(
                        table.c.source == self._source,
                        table.c.feed.in_([_PARENTS, _FINISH]),
                    )
                )
            rows = connection.execute(query).all()
        self._positions = {row.feed: (row.position, row.anchor) for row in rows}

    def _register(self, connection: Connection) -> bool:
        """Say who we are; return whether the store was somewhere else before."""
        table = tables.sources
        before = connection.execute(
            select(table.c.store).where(table.c.source == self._source)
        ).scalar()
        values = self._places.describe() | {"time_seen": time.time()}
        statement = insert(table).values(source=self._source, journaled="[]", **values)
        connection.execute(
            statement.on_conflict_do_update(index_elements=["source"], set_=values)
        )
        return before is not None and before != values["store"]

    def _check_anchors(self) -> None:
        """Begin a feed again whose numbers do not mean the same rows any more.

        That is so for one of two copies of a file which both went on, and for a file
        that was put back from a backup. What is there is not copied twice.
        """
        for feed in ROW_FEEDS:
            position, anchor = (self._positions or {}).get(feed.table, (0, None))
            if position and clean(self._feed.key_at(feed, position)) != anchor:
                logger.warning(
                    "%s: rows of %s are not those that were copied; all are compared",
                    self._feed.path,
                    feed.table,
                )
                self._rewind(feed.table)
        if self._at(_FINISH) > self._feed.heads()["changes"]:
            self._rewind(_PARENTS)
            self._rewind(_FINISH)

    def _rewind(self, feed: str) -> None:
        with self._lend() as connection:
            self._move(connection, feed, 0, None)
        self._moved(feed, 0, None)

    def _move(
        self, connection: Connection, feed: str, position: int, anchor: str | None
    ) -> None:
        """Store a position, in the transaction of what it stands for."""
        table = tables.positions
        before = self._at(feed)
        statement = insert(table).values(
            source=self._source, feed=feed, position=position, anchor=anchor
        )
        moved = connection.execute(
            statement.on_conflict_do_update(
                index_elements=["source", "feed"],
                set_={"position": position, "anchor": anchor},
                where=table.c.position == before,
            ).returning(table.c.source)
        )
        if moved.first() is None:
            self.forget()
            raise ServerError(
                "another process copies the same file; this one looks again"
            )

    def _moved(self, feed: str, position: int, anchor: str | None) -> None:
        if self._positions is not None:
            self._positions[feed] = (position, anchor)

    # ------------------------------------------------------------------------ rows

    def _page(self, feed: RowFeed, upto: int) -> bool:
        """Copy the next page of a table; return whether there may be another."""
        rows = self._feed.page(feed, self._at(feed.table), upto)
        if not rows:
            return False
        position: int = rows[-1]["_number"]
        anchor = clean(rows[-1][feed.key])
        table = schema.metadata.tables[feed.table]
        size = sum(len(v) for row in rows for v in row.values() if isinstance(v, str))
        with self._lend(size=size) as connection:
            if table is schema.image_refs:
                self._put(connection, table, rows, _absent_image)
            else:
                key = [feed.key]
                self._put(
                    connection,
                    table,
                    rows,
                    lambda t: insert(t).on_conflict_do_nothing(index_elements=key),
                )
            self._move(connection, feed.table, position, anchor)
        self._moved(feed.table, position, anchor)
        self.copied += len(rows)
        return position < upto

    def _put(
        self,
        connection: Connection,
        table: Table,
        rows: Sequence[Row],
        make: Callable[[Table], Any],
        *,
        keep_id: bool = False,
    ) -> None:
        """Execute a statement for rows, and put those aside that are refused."""
        names = [c.name for c in table.columns if keep_id or c.name != "id"]
        values = [{name: clean(row[name]) for name in names} for row in rows]
        self._attempt(connection, table, values, make(table))

    def _attempt(
        self,
        connection: Connection,
        table: Table,
        values: list[Row],
        statement: Any,
    ) -> None:
        if not values:
            return
        try:
            with connection.begin_nested():
                connection.execute(statement, values)
        except DBAPIError as error:
            if not _is_refusal(error):
                raise
            if len(values) > 1:
                half = len(values) // 2
                self._attempt(connection, table, values[:half], statement)
                self._attempt(connection, table, values[half:], statement)
                return
            self.refused += 1
            reason = str(error.orig).partition("\n")[0]
            logger.error(
                "%s: the server refuses a row of %s, which is kept in its table "
                "replica_refused: %s",
                self._feed.path,
                table.name,
                reason,
            )
            connection.execute(
                insert(tables.refused).values(
                    source=self._source,
                    time=time.time(),
                    table_name=table.name,
                    row=orjson.dumps(
                        values[0], default=repr, option=orjson.OPT_NON_STR_KEYS
                    ).decode(),
                    reason=clean(reason),
                )
            )

    # --------------------------------------------------------------------- parents

    def _parents(self) -> bool:
        after = self._at(_PARENTS)
        with self._feed.snapshot() as seen:
            changes = seen.changes(after, 2**63 - 1, _PAGE)
            if not changes:
                return False
            runs = seen.rows("runs", "uid", _keys(changes, "run"))
            known = [row["uid"] for row in runs]
            samples = {*map(int, _keys(changes, "sample"))}
            samples |= {r["sample_id"] for r in runs if r["sample_id"] is not None}
            sample_rows = seen.rows("samples", "id", sorted(samples))
            history = seen.rows("sample_history", "sample_id", sorted(samples))
            people = seen.rows("people", "id", _keys(changes, "person"))
            streams = seen.rows("streams", "run_uid", known)
            stream_resources = seen.rows("stream_resources", "run_uid", known)
            resources = seen.rows("resources", "run_uid", known)
        position = changes[-1][0]
        with self._lend(size=_size(runs, streams, stream_resources)) as connection:
            ids = self._samples(connection, sample_rows, history)
            for person in people:
                self._person(connection, person)
            self._begin_runs(connection, runs, ids)
            self._put(connection, schema.streams, streams, _absent("uid"))
            self._put(
                connection,
                schema.stream_resources,
                [self._places.stream_resource(row) for row in stream_resources],
                _replaced("uid", ["uri"]),
            )
            self._put(
                connection,
                schema.resources,
                [self._places.resource(row) for row in resources],
                _replaced("uid", ["root"]),
            )
            self._move(connection, _PARENTS, position, None)
        self._moved(_PARENTS, position, None)
        self.copied += len(changes)
        return len(changes) == _PAGE

    def _samples(
        self, connection: Connection, rows: list[Row], history: list[Row]
    ) -> dict[int, int]:
        """Store samples by their names; return their numbers here by those there."""
        table, old = schema.samples, schema.sample_history
        names = [name for c in table.columns if (name := c.name) not in ("id", "name")]
        self._put(connection, table, rows, _replaced("name", names))
        ids = {
            name: number
            for number, name in connection.execute(
                select(table.c.id, table.c.name).where(
                    table.c.name.in_([clean(row["name"]) for row in rows])
                )
            )
        }
        found = {
            row["id"]: ids[name] for row in rows if (name := clean(row["name"])) in ids
        }
        for row in history:
            if row["sample_id"] not in found:
                continue
            values = {
                "sample_id": found[row["sample_id"]],
                "time": row["time"],
                "sample": clean(row["sample"]),
            }
            same = and_(*(old.c[name] == value for name, value in values.items()))
            columns = [literal(v, old.c[n].type) for n, v in values.items()]
            connection.execute(
                insert(old).from_select(
                    list(values), select(*columns).where(~exists().where(same))
                )
            )
        return found

    def _person(self, connection: Connection, row: Row) -> int:
        """Store a person, known by the ORCID, else by name and address."""
        table = schema.people
        values = {n: clean(row[n]) for n in ("name", "email", "orcid", "affiliation")}
        alike = and_(
            table.c.name == values["name"],
            table.c.email.is_not_distinct_from(values["email"]),
        )
        if values["orcid"] is not None:
            alike = or_(
                table.c.orcid == values["orcid"], and_(alike, table.c.orcid.is_(None))
            )
        found = connection.execute(
            select(table.c.id)
            .where(alike)
            .order_by(table.c.orcid.nulls_last())
            .limit(1)
        ).scalar()
        if found is None:
            statement = insert(table).values(**values).returning(table.c.id)
            return connection.execute(statement).scalar_one()
        known = {name: value for name, value in values.items() if value is not None}
        connection.execute(update(table).where(table.c.id == found).values(**known))
        return found

    def _begin_runs(
        self, connection: Connection, runs: list[Row], samples: dict[int, int]
    ) -> None:
        table = schema.runs
        uids = [clean(row["uid"]) for row in runs]
        there = set(
            connection.execute(
                select(table.c.uid).where(table.c.uid.in_(uids))
            ).scalars()
        )
        new = [row for row in runs if clean(row["uid"]) not in there]
        numbers = self._free_numbers(connection, new)
        begun = [
            {
                **row,
                **dict.fromkeys(_END),
                "id": number,
                "sample_id": samples.get(row["sample_id"]),
                "writer": None,
            }
            for row, number in zip(new, numbers, strict=True)
        ]
        self._put(connection, table, begun, _absent("uid"), keep_id=True)
        mine = tables.source_runs
        if uids:
            connection.execute(
                insert(mine).on_conflict_do_nothing(index_elements=["run_uid"]),
                [
                    {"run_uid": uid, "source": self._source, "folder": quote_name(uid)}
                    for uid in uids
                ],
            )

    def _free_numbers(self, connection: Connection, runs: list[Row]) -> list[int]:
        """Return numbers for new runs that stand in the order of their times.

        Several files come together here, and one that was cut off comes late: the
        newest run is the one that began last.
        """
        wished = [run_number(row["time_start"], row["uid"]) for row in runs]
        table = schema.runs
        taken = (
            set(
                connection.execute(
                    select(table.c.id).where(
                        or_(
                            *(
                                table.c.id.between(number, number + 999)
                                for number in wished
                            )
                        )
                    )
                ).scalars()
            )
            if wished
            else set[int]()
        )
        found: list[int] = []
        for number in wished:
            while number in taken:
                number += 1
            taken.add(number)
            found.append(number)
        return found

    # ---------------------------------------------------------------------- finish

    def _finish(self, upto: int) -> bool:
        with self._feed.snapshot() as seen:
            changes = seen.changes(self._at(_FINISH), upto, _PAGE)
            if not changes:
                return False
            wanted = _keys(changes, "run")
            runs = seen.rows("runs", "uid", wanted)
            known = [row["uid"] for row in runs]
            ids = {row["id"]: row["uid"] for row in runs}
            tags = seen.rows("run_tags", "run_uid", known)
            roles = seen.rows("run_people", "run_uid", known)
            people = seen.rows("people", "id", {r["person_id"] for r in roles})
            accounts = seen.rows("frame_accounts", "run_uid", known)
            texts = seen.rows("run_texts", "run_id", list(ids))
            notes = seen.rows("notes", "id", _keys(changes, "note"))
            columns = seen.rows(
                "event_columns", "stream_uid", _keys(changes, "columns")
            )
            samples = seen.rows("samples", "id", {r["sample_id"] for r in runs})
        position = changes[-1][0]
        gone = sorted(set(wanted) - set(known))
        with self._lend(size=_size(runs, texts, columns)) as connection:
            self._remove_runs(connection, gone)
            self._end_runs(connection, runs, self._samples(connection, samples, []))
            self._renew(connection, schema.run_tags, "run_uid", known, tags)
            here = {row["id"]: self._person(connection, row) for row in people}
            roles = [{**row, "person_id": here[row["person_id"]]} for row in roles]
            self._renew(connection, schema.run_people, "run_uid", known, roles)
            self._renew(connection, schema.frame_accounts, "run_uid", known, accounts)
            self._texts(connection, ids, texts)
            self._notes(connection, _keys(changes, "note"), notes)
            self._renew(
                connection,
                schema.event_columns,
                "stream_uid",
                _keys(changes, "columns"),
                columns,
            )
            self._move(connection, _FINISH, position, None)
        self._moved(_FINISH, position, None)
        return True

    def _remove_runs(self, connection: Connection, uids: list[str]) -> None:
        """Remove runs that are gone from the file they came from."""
        if not uids:
            return
        mine, runs = tables.source_runs, schema.runs
        ours = select(mine.c.run_uid).where(
            mine.c.run_uid.in_([clean(uid) for uid in uids]),
            mine.c.source == self._source,
        )
        removed = connection.execute(ours).scalars().all()
        connection.execute(delete(runs).where(runs.c.uid.in_(removed)))
        connection.execute(delete(mine).where(mine.c.run_uid.in_(removed)))

    def _end_runs(
        self, connection: Connection, runs: list[Row], samples: dict[int, int]
    ) -> None:
        table = schema.runs
        names = [c.name for c in table.columns if c.name not in ("id", "uid", "writer")]
        rows = [
            {**row, "sample_id": samples.get(row["sample_id"]), "writer": None}
            for row in runs
        ]
        values = [{n: clean(row[n]) for n in ["uid", *names]} for row in rows]
        statement = update(table).where(table.c.uid == bindparam("key"))
        self._attempt(
            connection,
            table,
            [
                {"key": row["uid"], **{f"set_{n}": row[n] for n in names}}
                for row in values
            ],
            statement.values({n: bindparam(f"set_{n}") for n in names}),
        )

    def _renew(
        self,
        connection: Connection,
        table: Table,
        column: str,
        keys: list[str],
        rows: list[Row],
    ) -> None:
        """Put the rows of some runs in the place of those that were there."""
        if keys:
            old = table.c[column].in_([clean(key) for key in keys])
            connection.execute(delete(table).where(old))
        self._put(connection, table, rows, insert)

    def _texts(
        self, connection: Connection, uids: dict[int, str], rows: list[Row]
    ) -> None:
        runs, table = schema.runs, schema.run_texts
        query = select(runs.c.uid, runs.c.id).where(
            runs.c.uid.in_([clean(uid) for uid in uids.values()])
        )
        ids: dict[str, int] = dict(
            cast("Iterable[tuple[str, int]]", map(tuple, connection.execute(query)))
        )
        renewed = [
            {**row, "run_id": ids[uid]}
            for row in rows
            if (uid := clean(uids[row["run_id"]])) in ids
        ]
        if ids:
            old = table.c.run_id.in_(list(ids.values()))
            connection.execute(delete(table).where(old))
        self._put(connection, table, renewed, insert)

    def _notes(self, connection: Connection, keys: list[str], rows: list[Row]) -> None:
        table, mine = schema.notes, tables.source_notes
        present = {row["id"]: row for row in rows}
        for key in map(int, keys):
            where = and_(mine.c.source == self._source, mine.c.local_id == key)
            note = connection.execute(select(mine.c.note_id).where(where)).scalar()
            if note is not None:
                connection.execute(delete(table).where(table.c.id == note))
                connection.execute(delete(mine).where(where))
            if key not in present:
                continue
            names = [c.name for c in table.columns if c.name != "id"]
            values = {name: clean(present[key][name]) for name in names}
            if note is not None:
                values["id"] = note
            added = insert(table).values(**values).returning(table.c.id)
            number = connection.execute(added).scalar_one()
            connection.execute(
                insert(mine).values(source=self._source, local_id=key, note_id=number)
            )


# --------------------------------------------------------------------------- helpers


def _is_refusal(error: DBAPIError) -> bool:
    """Say whether the server refuses a row, whenever it is asked."""
    # Values, references, limits such as that of an index.
    state = getattr(error.orig, "sqlstate", None) or ""
    return isinstance(error, (DataError, IntegrityError)) or state[:2] in (
        "22",
        "23",
        "54",
    )


def clean(value: Any) -> Any:
    """Return a value that PostgreSQL takes: its text has no NUL, which becomes ␀."""
    if isinstance(value, str) and "\0" in value:
        return value.replace("\0", "␀")
    return value


def run_number(time_start: float | None, uid: str) -> int:
    """Return the number of a run at the far end: the microsecond in which it began."""
    try:
        began = int((time_start or 0.0) * 1e6)
    except (OverflowError, ValueError):
        began = 0
    began = min(max(began, 0), 2**62 // 1000)
    return began * 1000 + zlib.crc32(uid.encode()) % 500


def _keys(changes: list[tuple[int, str, str]], kind: str) -> list[str]:
    return [key for _, found, key in changes if found == kind]


def _size(*groups: list[Row]) -> int:
    return sum(
        len(value)
        for rows in groups
        for row in rows
        for value in row.values()
        if isinstance(value, (str, bytes))
    )


def _absent(key: str) -> Callable[[Table], Any]:
    return lambda table: insert(table).on_conflict_do_nothing(index_elements=[key])


def _replaced(key: str, names: list[str]) -> Callable[[Table], Any]:
    def make(table: Table) -> Any:
        statement = insert(table)
        return statement.on_conflict_do_update(
            index_elements=[key],
            set_={name: statement.excluded[name] for name in names},
        )

    return make


def _absent_image(table: Table) -> Any:
    """Return an INSERT of a reference that is not there; it has no key of its own."""
    names = [c.name for c in table.columns if c.name != "id"]
    key = ("event_uid", "field_name", "zarr_group", "index_in_stack")
    same = exists().where(*(table.c[name] == bindparam(name) for name in key))
    columns = [sql_cast(bindparam(name), table.c[name].type) for name in names]
    return insert(table).from_select(names, select(*columns).where(~same))
