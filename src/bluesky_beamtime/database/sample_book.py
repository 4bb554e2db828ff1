"""The samples of a beamtime, each with its history and its runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import func, select

from bluesky_beamtime.database import schema
from bluesky_beamtime.database.conditions import make_conditions
from bluesky_beamtime.database.engine import Database
from bluesky_beamtime.database.journaled import JournalIndex
from bluesky_beamtime.database.samples import (
    SampleChange,
    SampleMetadata,
    read_sample,
    sample_changes,
)
from bluesky_beamtime.database.search import Runs
from bluesky_beamtime.errors import SampleNotFoundError

_samples = schema.samples
_ALIKE = 5


class Sample:
    """A sample of a beamtime; everything is read when it is asked for.

    Attributes
    ----------
    name : str
        Its name.
    id : int
        Number of its row.
    """

    def __init__(
        self, database: Database, journal: JournalIndex, name: str, number: int
    ) -> None:
        self._database = database
        self._journal = journal
        self.name = name
        self.id = number

    @property
    def metadata(self) -> SampleMetadata:
        """All that is known of it now; a copy.

        Raises
        ------
        SampleNotFoundError
            It was removed.
        """
        with self._database.reading() as connection:
            found = read_sample(connection, self.id)
        if found is None:
            raise SampleNotFoundError(f"sample {self.name!r} is not there any more")
        return found

    @property
    def history(self) -> list[SampleChange]:
        """What it was, and from when on; the oldest first, what it is now last."""
        with self._database.reading() as connection:
            changes = sample_changes(connection, self.id)
        return changes or [SampleChange(0.0, self.metadata)]

    @property
    def runs(self) -> Runs:
        """Its runs, the newest first."""
        conditions = make_conditions(sample=self.name)
        return Runs(self._database, self._journal, conditions)

    @property
    def formula(self) -> str | None:
        """Chemical formula."""
        return self.metadata.formula

    @property
    def serial(self) -> str | None:
        """Serial number or barcode."""
        return self.metadata.serial

    @property
    def tags(self) -> list[str]:
        """Words to find it by."""
        return self.metadata.tags

    @property
    def beamline_pos(self) -> Any:
        """Where it is mounted."""
        return self.metadata.beamline_pos

    @property
    def extra(self) -> dict[str, Any]:
        """Everything else."""
        return self.metadata.extra

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Sample)
            and other.id == self.id
            and other._database.path == self._database.path
        )

    def __hash__(self) -> int:
        return hash((self.id, self._database.path))

    def __repr__(self) -> str:
        known = self.metadata
        said = filter(None, (known.formula, known.serial, ", ".join(known.tags)))
        count = len(self.runs)
        runs = f"{count} run{'' if count == 1 else 's'}"
        return f"<Sample {self.name!r}: {', '.join((*said, runs))}>"


class Samples(Mapping[str, Sample]):
    """The samples of a beamtime by their names, in the order in which they came."""

    def __init__(self, database: Database, journal: JournalIndex) -> None:
        self._database = database
        self._journal = journal

    def __getitem__(self, name: str) -> Sample:
        """Return a sample.

        Raises
        ------
        SampleNotFoundError
            There is none of this name; the message says which there are.
        """
        query = select(_samples.c.id).where(_samples.c.name == str(name))
        with self._database.reading() as connection:
            number = connection.execute(query).scalar()
        if number is None:
            names = list(self)
            there = ", ".join(repr(each) for each in names[-_ALIKE:])
            more = " and others" if len(names) > _ALIKE else ""
            raise SampleNotFoundError(
                f"there is no sample {name!r}: "
                + (f"there are {there}{more}" if names else "there is none yet")
            )
        return Sample(self._database, self._journal, name, number)

    def __iter__(self) -> Iterator[str]:
        query = select(_samples.c.name).order_by(_samples.c.id)
        with self._database.reading() as connection:
            names = connection.execute(query).scalars().all()
        return iter(names)

    def __len__(self) -> int:
        with self._database.reading() as connection:
            return connection.execute(
                select(func.count()).select_from(_samples)
            ).scalar_one()

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def __repr__(self) -> str:
        return f"<{len(self)} samples: {', '.join(self)}>"
