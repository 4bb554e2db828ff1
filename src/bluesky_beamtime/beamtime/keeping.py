"""Whether everything is there, and what brings it back."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from bluesky_beamtime.database.integrity import VerifyReport, verify
from bluesky_beamtime.database.migrating import Migration, migrate
from bluesky_beamtime.recording import (
    RecoveryReport,
    recover,
)

if TYPE_CHECKING:
    pass


from bluesky_beamtime.beamtime.parts import Parts


class Keeping(Parts):
    """Checks what is there, and mends it."""

    def pack(self) -> int:
        """Copy the numbers of long runs that are over to columns, quick to read.

        This happens by itself when a run has stopped and no other has begun; it is for
        runs that were recorded otherwise. The rows of the events stay as they are, and
        are what is read where there are no columns.

        Returns
        -------
        int
            How many streams were packed.

        Raises
        ------
        ReadOnlyError
            The beamtime was opened with ``mode="r"``.
        DatabaseError
            The database cannot be read or written.
        """
        if self._recorder is None:
            raise self._read_only("pack runs")
        return self._recorder.pack()

    def verify(
        self,
        *,
        quick: bool = False,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> VerifyReport:
        """Check the file, every row, every frame, and whether they agree.

        Changes nothing; what is just being recorded is left out.

        Parameters
        ----------
        quick
            Leave out the checksums of frames, which take as long as reading them all.
        progress
            Called with what is being checked, how many are done, and how many there
            are.

        Returns
        -------
        VerifyReport
            ``report.ok`` and ``report.problems``, each with its place and next step.
        """
        return verify(self._database, quick=quick, progress=progress)

    def recover(
        self, *, progress: Callable[[str, int, int], None] | None = None
    ) -> RecoveryReport:
        """Put what is in the journal into the tables, and make the stores whole.

        Documents go to the place at which they were emitted. What is still malformed
        stays in the journal; what a live process records is left alone. Doing it again
        changes nothing.

        Raises
        ------
        ReadOnlyError
            The beamtime was opened with ``mode="r"``.
        DatabaseError
            The database cannot take the documents now; they are in the journal still.
        """
        if self._recorder is None:
            raise self._read_only("be recovered")
        return recover(self._database, progress)

    @staticmethod
    def migrate(path: str | os.PathLike[str], *, backup: bool = True) -> Migration:
        """Bring a file of an older version up to date; opening never does.

        All of it or nothing, with a copy of the file as it was beside it; see
        :func:`bluesky_beamtime.database.migrate`.

        Raises
        ------
        BeamtimeFileError
            It cannot be brought up to date; nothing was changed.
        RunStateError
            A live process records into it; nothing was changed.
        """
        return migrate(path, backup=backup)
