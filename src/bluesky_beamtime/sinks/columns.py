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
    """The columns of one table: those of its first batch, and those that came later.

    Parameters
    ----------
    policy
        What a batch with columns that are not there does: ``"evolve"`` adds them,
        ``"drop"`` leaves them out with one warning per column, ``"raise"`` refuses the
        batch.
    target
        The table, for messages.
    names
        Columns that are there already; None if the first batch decides.
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

    def missing(self, columns: Sequence[str]) -> list[str]:
        """Return the names that a batch would add to the table; changes nothing.

        Raises
        ------
        SinkSchemaError
            There are some, and the policy is ``"raise"``.
        """
        if self.names is None:
            return self._distinct(columns, [])
        if tuple(columns) in self._places:
            # Looked at before, and nothing was added since.
            return []
        found = self._match(columns)
        new = [name for name, there in zip(columns, found, strict=True) if not there]
        if not new:
            return []
        if self.policy == "raise":
            raise SinkSchemaError(
                f"{self.target} has no column {', '.join(map(repr, new))}; nothing of "
                "this batch was written. schema='evolve' adds columns, schema='drop' "
                "leaves them out",
                context=ErrorContext(target=self.target),
            )
        if self.policy == "drop":
            for name in new:
                if name not in self._dropped:
                    self._dropped.add(name)
                    logger.warning(
                        "sinks.schema.column_dropped",
                        extra={"column": name, "target": self.target},
                    )
            return []
        return self._distinct(new, self.names)

    def add(self, names: Iterable[str]) -> None:
        """Note that the table has these columns now."""
        self.names = [*(self.names or ()), *names]
        self._places.clear()

    def _match(self, columns: Sequence[str]) -> list[str | None]:
        """Return for each column of a batch the table's own name of it."""
        names = set(self.names or ())
        taken: set[str] = set()
        found: list[str | None] = []
        for column in columns:
            # Tables know "T" and "t" as one: the second of them has a number.
            number, name = 1, column
            while name in taken:
                number += 1
                name = f"{column}_{number}"
            if name not in names:
                name = next(
                    (n for n in self._numbered(column) if n in names - taken), None
                )
            if name is not None:
                taken.add(name)
            found.append(name)
        return found

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

    @staticmethod
    def _distinct(columns: Iterable[str], beside: Sequence[str]) -> list[str]:
        """Return names with a number where they differ from another in case alone."""
        used = {name.casefold() for name in beside}
        result: list[str] = []
        for column in columns:
            number, name = 1, column
            while name.casefold() in used:
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
