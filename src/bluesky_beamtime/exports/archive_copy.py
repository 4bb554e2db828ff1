"""The files of a beamtime on their way to an archive, one after the other."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from bluesky_beamtime.errors import ArchiveError, BackendError, PathError
from bluesky_beamtime.exports.archive_files import Bringer
from bluesky_beamtime.exports.archive_report import ArchiveReport, Outcome, list_reasons
from bluesky_beamtime.exports.archive_session import ArchiveSession
from bluesky_beamtime.exports.belongings import Belonging, Belongings
from bluesky_beamtime.exports.far_end import FarEnd
from bluesky_beamtime.exports.turns import Turns
from bluesky_beamtime.storage.backends import check_key
from bluesky_beamtime.storage.layout import METADATA_FILE

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many bytes of it are, and how many there are."""

# Sent at the end: what was one moment's is good only with all that it promises.
_LAST = ("journal", "database")


class ArchiveCopy:
    """Gives the files of a beamtime out to threads, in an order that is safe.

    Parameters
    ----------
    far
        The place.
    belongings
        The files.
    session
        Is told what has arrived.
    progress
        Told how it gets on.
    leave_unreadable
        Go on without files that cannot be read, and name them; else they are an error.
    """

    def __init__(
        self,
        far: FarEnd,
        belongings: Belongings,
        session: ArchiveSession,
        progress: Progress | None,
        *,
        leave_unreadable: bool = False,
    ) -> None:
        self._far = far
        self._belongings = belongings
        self._session = session
        self._progress = progress
        self._leave_unreadable = leave_unreadable
        self._seen: set[str] = set()
        self._failed: dict[str, str] = {}
        self._report = ArchiveReport(url=far.url)
        self._total = sum(each.size for each in belongings.files())
        self._journal = f"{belongings.stem}.journal.jsonl"

    # -------------------------------------------------------------------- beforehand

    def refuse_others(self) -> set[str]:
        """Refuse a place with something of the same name that no archive wrote.

        Returns
        -------
        set of str
            What is there of this beamtime: nothing.

        Raises
        ------
        ArchiveError
            There is.
        """
        for top in sorted(
            {each.name.partition("/")[0] for each in self._belongings.files()}
        ):
            if self._far.size(top) is not None or self._far.names(top):
                raise ArchiveError(
                    f"{self._far.url} has {top!r} already, which is not from an "
                    "archive; nothing was changed. Choose another place",
                    names=(top,),
                    filename=self._far.url,
                )
        return set()

    def list_there(self) -> set[str]:
        """Return what may be there, of this or of an archive that was interrupted."""
        there: set[str] = set()
        listed: set[str] = set()
        for each in self._belongings.files():
            top, slash, _ = each.name.partition("/")
            if top not in listed:
                listed.add(top)
                there.update(self._far.names(top) if slash else [top])
        return there

    # -------------------------------------------------------------------- one by one

    def run(self, bringer: Bringer, threads: int, *, dry_run: bool) -> ArchiveReport:
        """Copy everything, then say in the archive that it is whole.

        Raises
        ------
        ArchiveError
            Something is not there. What is, is noted in the archive.
        """
        look = partial(self._look, bringer)
        try:
            with Turns(threads, self._take, look, self._far.stop.set) as turns:
                self._give_out(turns, bringer)
                turns.finish()
                self._give_out_kept(turns, bringer)
                turns.finish()
            self._bring_last(bringer)
            if self._failed:
                raise self._incomplete()
            if not dry_run:
                gone = self._journal in self._session.entries.keys() - self._seen
                self._session.finish(self._journal if gone else None)
        except BaseException as error:
            self._session.give_up()
            if isinstance(error, BackendError):
                raise self._unfinished(error) from error
            raise
        return self._complete_report(dry_run)

    def _give_out(self, turns: Turns[Outcome], bringer: Bringer) -> None:
        """Give out the files: an array's metadata is read before and sent after it."""
        last: list[tuple[str, Callable[[], Outcome]]] = []
        for each in self._belongings.files():
            while last and not each.name.startswith(last[-1][0]):
                turns.do_afterwards(last.pop()[1])
            if each.kind in _LAST or not self._is_good(each):
                continue
            self._seen.add(each.name)
            folder, _, name = each.name.rpartition("/")
            if name == METADATA_FILE:
                work = self._read_now(each, bringer)
                if work is not None:
                    last.append((f"{folder}/", work))
            else:
                turns.do(partial(bringer.bring, each))
        while last:
            turns.do_afterwards(last.pop()[1])

    def _give_out_kept(self, turns: Turns[Outcome], bringer: Bringer) -> None:
        """Have looked at what only the archive has."""
        last = (self._journal, self._belongings.database.name)
        for name in sorted(self._session.entries.keys() - self._seen - {*last}):
            turns.do(partial(bringer.keep, name))

    def _read_now(
        self, each: Belonging, bringer: Bringer
    ) -> Callable[[], Outcome] | None:
        """Read the metadata of an array; return what sends it once its frames are."""
        try:
            data = each.path.read_bytes()
        except FileNotFoundError:
            self._seen.discard(each.name)
            return None
        except OSError as error:
            why = f"cannot read {str(each.path)!r}: {os.strerror(error.errno or 0)}"
            self._take(Outcome(each.name, "unreadable", why=why))
            return None

        folder = each.name.removesuffix(METADATA_FILE)

        def send() -> Outcome:
            if any(name.startswith(folder) for name in tuple(self._failed)):
                return Outcome(each.name, "failed", why="its frames are not there")
            return bringer.bring_data(each, data)

        return send

    def _is_good(self, each: Belonging) -> bool:
        try:
            check_key(each.name)
        except PathError as error:
            self._failed[each.name] = str(error)
            return False
        return True

    def _bring_last(self, bringer: Bringer) -> None:
        """Bring the journal and the database, whose frames are all there now."""
        for each in self._belongings.files():
            if each.kind not in _LAST:
                return
            self._seen.add(each.name)
            if not self._failed:
                self._take(bringer.bring(each))

    def _take(self, outcome: Outcome) -> None:
        """Note what became of a file."""
        if outcome.action == "gone":
            self._seen.discard(outcome.name)
        elif outcome.action == "unreadable":
            self._report.unreadable[outcome.name] = outcome.why
            if self._leave_unreadable:
                self._seen.discard(outcome.name)
                self._session.leave_out(f"{outcome.name}: {outcome.why}")
            else:
                self._failed[outcome.name] = outcome.why
        elif outcome.entry is None:
            self._failed[outcome.name] = outcome.why
        else:
            self._session.entries[outcome.name] = outcome.entry
            self._report.add(outcome)

    def _look(self, bringer: Bringer) -> None:
        if self._progress is not None:
            self._progress("archive", min(bringer.done, self._total), self._total)
        self._session.checkpoint()

    # -------------------------------------------------------------------- at the end

    def _complete_report(self, dry_run: bool) -> ArchiveReport:
        report, entries = self._report, self._session.entries
        report.dry_run = dry_run
        report.absent, report.live = self._belongings.absent, self._belongings.live
        report.files = len(entries)
        report.size = sum(entry.size for entry in entries.values())
        return report

    def _incomplete(self) -> ArchiveError:
        count = len(self._failed)
        what = "one file is" if count == 1 else f"{count} files are"
        otherwise = (
            ", or leave out what cannot be read: --leave-unreadable"
            if self._report.unreadable
            else ""
        )
        return ArchiveError(
            f"{what} not in {self._far.url}: {list_reasons(self._failed)}. The others "
            f"are there, the database is not; mend the cause and archive again"
            f"{otherwise}",
            names=sorted(self._failed),
            filename=self._far.url,
        )

    def _unfinished(self, error: BackendError) -> ArchiveError:
        return ArchiveError(
            f"the archive of {str(self._belongings.database)!r} is not finished: "
            f"{error}. {len(self._session.entries)} files are in {self._far.url} and "
            "were compared; archive again to go on from there",
            names=() if error.filename is None else (error.filename,),
            errno=error.errno,
            filename=self._far.url,
        )
