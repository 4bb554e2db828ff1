"""The columns of a table, and what becomes of a row that has others."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from bluesky_beamtime.errors import ErrorContext, SinkSchemaError

SchemaPolicy = Literal["evolve", "drop", "raise"]
logger = logging.getLogger("bluesky_beamtime.sinks")


class Columns:
    """The columns of one table: those of its first call, and those that came later.

    Parameters
    ----------
    policy
        What a batch with columns that are not there does: ``"evolve"`` adds them,
        ``"drop"`` leaves them out with one warning per column, ``"raise"`` refuses the
        batch.
    target
        The table, for messages.
    names
        Columns that are there already; None if the first call decides.
    """

    def __init__(
        self, policy: SchemaPolicy, target: str, names: Iterable[str] | None = None
    ) -> None:
        if policy not in ("evolve", "drop", "raise"):
            raise ValueError(f"schema={policy!r}: 'evolve', 'drop' or 'raise'")
        self.policy: SchemaPolicy = policy
        self.target = target
        self.names: list[str] | None = None if names is None else list(names)
        self._dropped: set[str] = set()
        self._places: dict[tuple[str, ...], list[int | None] | None] = {}
        # Which column of the batches a column of the table was made for.
        self._made_for: dict[str, str] = {}

    def learn(self, batches: Iterable[Sequence[str]]) -> list[str]:
        """Note the columns that batches of one call add, and return their names.

        The first call decides with all of its batches: each event of two devices has
        two. Their order is that of calls with a batch each.

        Raises
        ------
        SinkSchemaError
            There are some, it is not the first call, and the policy is ``"raise"``.
        """
        policy = "evolve" if self.names is None else self.policy
        learnt: list[str] = []
        for columns in batches:
            new = self._missing(columns, policy)
            if new or self.names is None:
                self.add(new)
                learnt += new
        return learnt

    def missing(self, columns: Sequence[str]) -> list[str]:
        """Return the names that a batch would add to the table; changes nothing.

        Raises
        ------
        SinkSchemaError
            There are some, and the policy is ``"raise"``.
        """
        return self._missing(columns, self.policy)

    def _missing(self, columns: Sequence[str], policy: SchemaPolicy) -> list[str]:
        if self.names is None:
            return self._named(columns, [])
        if tuple(columns) in self._places:
            # Looked at before, and nothing was added since.
            return []
        found = self._match(columns)
        new = [name for name, there in zip(columns, found, strict=True) if not there]
        if not new:
            return []
        if policy == "raise":
            raise SinkSchemaError(
                f"{self.target} has no column {', '.join(map(repr, new))}; nothing of "
                "this batch was written. schema='evolve' adds columns, schema='drop' "
                "leaves them out",
                context=ErrorContext(target=self.target),
            )
        if policy == "drop":
            for name in new:
                if name not in self._dropped:
                    self._dropped.add(name)
                    logger.warning(
                        "sinks.schema.column_dropped",
                        extra={"column": name, "target": self.target},
                    )
            return []
        return self._named(new, self.names)

    def add(self, names: Iterable[str]) -> None:
        """Note that the table has these columns now."""
        self.names = [*(self.names or ()), *names]
        self._places.clear()

    def _match(self, columns: Sequence[str]) -> list[str | None]:
        """Return for each column of a batch the table's own name of it."""
        own = set(columns)
        taken: set[str] = set()
        found: list[str | None] = []
        for column in columns:
            # Tables know "T" and "t" as one: the second of them has a number.
            number, name = 1, column
            while name in taken:
                number += 1
                name = f"{column}_{number}"
            names = {n for n in self.names or () if self._may_be(n, column, own)}
            if name not in names:
                name = next(
                    (n for n in self._numbered(column) if n in names - taken), None
                )
            if name is not None:
                taken.add(name)
            found.append(name)
        return found

    def _may_be(self, name: str, column: str, others: set[str]) -> bool:
        """Return whether a column of the table may be the one of a batch."""
        if name in self._made_for:
            return self._made_for[name] == column
        # Made before: its own name says most.
        return name == column or name not in others

    def _numbered(self, column: str) -> Iterable[str]:
        folded = column.casefold()
        names = [name.casefold() for name in self.names or ()]
        if folded not in names:
            return
        # Each of those that are called alike may have taken a number.
        alike = re.compile(re.escape(folded) + r"(_\d+)?")
        count = sum(1 for name in names if alike.fullmatch(name))
        for number in range(2, count + 2):
            yield f"{column}_{number}"

    def _named(self, columns: Sequence[str], beside: Sequence[str]) -> list[str]:
        names = self._distinct(columns, beside)
        self._made_for.update(zip(names, columns, strict=True))
        return names

    @staticmethod
    def _distinct(columns: Iterable[str], beside: Sequence[str]) -> list[str]:
        """Return names with a number where they differ from another in case alone."""
        wanted = list(columns)
        used = {name.casefold() for name in beside}
        own = {name.casefold() for name in wanted}
        result: list[str] = []
        for column in wanted:
            number, name = 1, column
            # No number that another column has in its own name.
            while name.casefold() in used or (number > 1 and name.casefold() in own):
                number += 1
                name = f"{column}_{number}"
            used.add(name.casefold())
            result.append(name)
        return result

    def fit(
        self, columns: tuple[str, ...], rows: list[tuple[Any, ...]]
    ) -> list[tuple[Any, ...]]:
        """Return rows in the order of the table: None where a batch has no value."""
        if columns not in self._places:
            self._places[columns] = self._find_places(columns)
        places = self._places[columns]
        if places is None:
            return rows
        return [
            tuple([None if place is None else row[place] for place in places])
            for row in rows
        ]

    def _find_places(self, columns: tuple[str, ...]) -> list[int | None] | None:
        names = self.names or []
        if list(columns) == names:
            return None
        mine = {
            name: place
            for place, name in enumerate(self._match(columns))
            if name is not None
        }
        return [mine.get(name) for name in names]
