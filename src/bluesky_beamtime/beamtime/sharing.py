"""A beamtime for others: on a server, in an index, through Tiled."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from bluesky_beamtime.database.index_follower import IndexFollower
from bluesky_beamtime.database.runs import Run
from bluesky_beamtime.errors import RunStateError
from bluesky_beamtime.plugins import load_plugin

if TYPE_CHECKING:
    from bluesky_beamtime.database.replica import Following


from bluesky_beamtime.beamtime.parts import Parts


class Sharing(Parts):
    """Lets others have what is recorded."""

    def register(
        self,
        index: str | os.PathLike[str],
        *,
        researcher: str | int | None = None,
        label: str | None = None,
    ) -> None:
        """Tell an index of this beamtime and of its runs, from now on.

        A thread does that as runs begin and end: recording never waits for the index.
        While it cannot be written, for which there is one warning, nothing is lost: it
        is caught up later.

        Parameters
        ----------
        index
            File of the index, see :class:`~bluesky_beamtime.database.Index`; made if
            it does not exist, in a folder that does.
        researcher
            Whose beamtime it is: a name, or the number from
            :meth:`~bluesky_beamtime.database.IndexWriter.register_researcher`.
        label
            How the index shall call the beamtime; by default the name of its file
            without ``.db``.
        """
        if self._index is not None:
            self._index.close()
        self._index = IndexFollower(
            self._database, index, researcher=researcher, label=label
        )
        # Also when nobody closes this beamtime: the thread does not know it.
        weakref.finalize(self, self._index.close)

    @property
    def replica(self) -> Following | None:
        """The server that follows this beamtime, None if none does.

        ``beamtime.replica.progress`` says how far it is behind,
        ``beamtime.replica.wait(60)`` waits until it is not.
        """
        return self._following

    def replicate_to(
        self, url: str, *, frames: str | None = None, keep_local: bool = True
    ) -> Following:
        """Have a PostgreSQL server follow this beamtime, from now until it is closed.

        All that is there is copied, and then what comes; each row once, whatever fails
        on the way. Nothing here waits for the server.

        Parameters
        ----------
        url
            Such as ``"postgresql://user@host/database"``.
        frames, keep_local
            As for :class:`Beamtime`.

        Returns
        -------
        Following
            What :attr:`replica` is from now on.

        Raises
        ------
        ReadOnlyError
            The beamtime was opened with ``mode="r"``.
        RunStateError
            A server follows already.
        ServerError
            That is no URL of a PostgreSQL database.
        """
        if self._recorder is None:
            raise self._read_only("be followed")
        if self._following is not None:
            raise RunStateError(f"{self._following.server} follows already")
        from bluesky_beamtime.database.replica import Following, Server

        following = Following(
            self._database, Server.of(url), frames=frames, keep_local=keep_local
        )
        self._follow(following, numbers=False)
        return following

    def take_home(
        self,
        directory: str | os.PathLike[str],
        *,
        runs: Iterable[Run | str] | None = None,
        exports: Sequence[str] = (),
        overwrite: bool = False,
        strict: bool = False,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Any:
        """Copy all of it, or some runs, into one folder that opens anywhere.

        With pages for a browser, exports, a README and the hash of every file; also
        while runs are being recorded. :func:`bluesky_beamtime.exports.take_home` says
        more of the parameters.

        Parameters
        ----------
        directory
            The folder to make, in one that exists.
        runs
            Such as ``beamtime.search(sample="LaB6")``; by default all.
        exports
            Formats, such as ``["nexus", "csv"]``.
        overwrite
            Replace an earlier copy.
        strict
            Fail if anything is missing or damaged.
        progress
            Called with what is being done, how much of it is, and how much there is.

        Returns
        -------
        bluesky_beamtime.exports.TakenHome
            What is in the folder, and what is missing or damaged.

        Raises
        ------
        ExportError
            There is something at ``directory``, no space, or the disk refused; nothing
            is left.
        UnsupportedFormatError
            There is no such format.
        MissingExtraError
            A package is not installed.
        """
        take_home = load_plugin("bluesky_beamtime.copies", "take-home", "take-home")
        return take_home(
            self.path,
            directory,
            runs=runs,
            exports=exports,
            overwrite=overwrite,
            strict=strict,
            progress=progress,
        )

    def tiled(self) -> Any:
        """Return a client of Tiled for this beamtime, without a server.

        Returns
        -------
        bluesky_tiled_plugins.clients.catalog_of_bluesky_runs.CatalogOfBlueskyRuns
            What ``tiled.client.from_uri`` gives for ``beamtime serve``.

        Raises
        ------
        MissingExtraError
            Tiled is not installed.
        """
        return load_plugin("bluesky_beamtime.serving", "tiled", "serve")(self._database)
