"""Runs by number, age, uid, or whatever is known of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bluesky_beamtime.database import rawsql
from bluesky_beamtime.database.conditions import (
    Moment,
    make_conditions,
    words_in_metadata,
)
from bluesky_beamtime.database.people import Person
from bluesky_beamtime.database.runs import Run
from bluesky_beamtime.database.samples import SampleMetadata
from bluesky_beamtime.database.schema import runs
from bluesky_beamtime.database.search import Runs

if TYPE_CHECKING:
    import pandas as pd


from bluesky_beamtime.beamtime.parts import Parts


class Finding(Parts):
    """Finds runs: a collection of them, newest first."""

    def __getitem__(self, key: int | str) -> Run:
        """Return a run by scan number, by age (``-1`` is the newest), or by uid.

        Raises
        ------
        RunNotFoundError
            There is no such run, or several begin with this uid.
        """
        if isinstance(key, str):
            return self._runs.by_uid(key)
        if isinstance(key, bool) or not hasattr(key, "__index__"):
            raise TypeError(
                "a run is found by its scan number, by -1 for the newest, or by the "
                f"beginning of its uid, not by {key!r}; list(beamtime) has them all"
            )
        number = int(key)
        if number < 0:
            return self._runs.newest(-number - 1)
        return self._runs.by_scan_id(number)

    def __len__(self) -> int:
        return len(self._runs)

    def __bool__(self) -> bool:
        # A beamtime without runs is still a beamtime.
        return True

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    def __contains__(self, uid: object) -> bool:
        return isinstance(uid, str) and bool(
            Runs(self._database, self._journal, [runs.c.uid == uid])
        )

    def search(
        self,
        *,
        plan_name: str | None = None,
        sample: str | SampleMetadata | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        text: str | None = None,
        tags: str | Iterable[str] | None = None,
        starred: bool | None = None,
        proposal: str | int | None = None,
        user: str | Person | None = None,
        exit_status: str | None = None,
        **metadata: Any,
    ) -> Runs:
        """Return the runs that fulfil every condition, the newest first.

        Parameters
        ----------
        plan_name
            Name of the plan.
        sample
            Name of the sample.
        since, until
            When the run began: datetime, seconds since 1970, or ISO text; local time
            unless a zone is given. A date without a time means the whole day.
        text
            Stands somewhere in the values of the start document, in what was known of
            the sample, in the reason of the end, in tags, notes or names of people;
            upper or lower case. Uids are not searched.
        tags
            One or several; the run has all of them.
        starred
            Whether it has a star.
        proposal
            Number or name of the proposal.
        user
            Name, e-mail address or ORCID of somebody who took part.
        exit_status
            ``success``, ``abort``, ``fail`` or ``interrupted``.
        **metadata
            Values of the start document; ``**{"optics.energy": 12.0}`` looks into
            nested mappings.

        Returns
        -------
        Runs
            Has a length, can be iterated and sliced; asks the database anew each time.
            :meth:`~bluesky_beamtime.database.Runs.sorted_by` and
            :meth:`~bluesky_beamtime.database.Runs.limit` give order and pages.

        Raises
        ------
        ValueError, TypeError
            Nothing can be searched like that; the message says what can.
        """
        conditions = make_conditions(
            plan_name=plan_name,
            sample=sample,
            since=since,
            until=until,
            text=text,
            tags=tags,
            starred=starred,
            proposal=proposal,
            user=user,
            exit_status=exit_status,
            metadata=metadata,
        )
        conditions += words_in_metadata(metadata)
        return Runs(self._database, self._journal, conditions)

    def distinct(self, key: str) -> dict[Any, int]:
        """Return the values that a key has, and how many runs have each.

        ``beamtime.distinct("plan_name")`` is ``{"count": 12, "scan": 3}``; see
        :meth:`~bluesky_beamtime.database.Runs.distinct`, which the result of a search
        has too.
        """
        return self._runs.distinct(key)

    def summaries(self, limit: int | None = None) -> list[dict[str, Any]]:
        """Return the lines of a listing of the newest runs, ready for JSON.

        Parameters
        ----------
        limit
            So many at most; all of them by default.
        """
        runs = self._runs if limit is None else self._runs.limit(limit)
        return list(runs.summaries())

    def sql(
        self, query: str, parameters: Sequence[Any] | Mapping[str, Any] = ()
    ) -> pd.DataFrame:
        """Ask the database in SQL, on a connection that only reads.

        The tables are described in the reference; ``run_list`` and ``event_values`` are
        the easiest to begin with.

        Parameters
        ----------
        query
            One ``SELECT``.
        parameters
            Values for its ``?``, or a mapping for its ``:name``.

        Returns
        -------
        pandas.DataFrame
            A row for each row.

        Raises
        ------
        QueryError
            The query is wrong, or it would change something.
        """
        import pandas as pd

        answer = rawsql.ask(self._database, query, parameters)
        frame: Any = pd.DataFrame
        return frame.from_records(answer.rows, columns=answer.columns)
