"""Documents and frames on their way in."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from bluesky_beamtime.database.closing import closing_line
from bluesky_beamtime.database.scan_ids import reserve_scan_id
from bluesky_beamtime.errors import BeamtimeError
from bluesky_beamtime.recording import (
    SubscriberWatch,
    acquisition_name,
    help_tiled_writer,
)
from bluesky_beamtime.storage import FrameStore

if TYPE_CHECKING:
    from bluesky import RunEngine
    from ophyd_async.core import PathProvider


from bluesky_beamtime.beamtime.attaching import Attachment
from bluesky_beamtime.beamtime.earlier import last_appetites
from bluesky_beamtime.beamtime.parts import Parts

_logger = logging.getLogger(__name__)


class Recording(Parts):
    """Takes the documents of a RunEngine, and has a place for the frames of devices."""

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Record one document; it is safe when this returns.

        Raises
        ------
        ReadOnlyError
            The beamtime was opened with ``mode="r"``.
        DatabaseWriteError
            Neither the database nor the journal could take it.
        BeamtimeError
            With ``on_error="raise"``: it could not be stored.
        """
        recorder = self._recorder
        if recorder is None:
            raise self._read_only("record")
        recorder(name, doc)
        if name == "start":
            help_tiled_writer()
        if self._index is not None and name in ("start", "stop"):
            self._index.notify()

    def attach(
        self,
        RE: RunEngine,
        *,
        preflight: Literal["refuse", "warn"] | None = "refuse",
        margin: float | None = None,
        report: bool | Callable[[str], object] = True,
    ) -> None:
        """Record every run of a RunEngine, with scan numbers that go on.

        Subscribes to the documents, makes :meth:`next_scan_id` the RunEngine's source
        of scan numbers, has the disk space looked at before a run begins, and prints
        one line when it has ended. Attaching again only changes the latter two.

        Parameters
        ----------
        RE
            The RunEngine.
        preflight
            What becomes of a run that does not fit on the disk, see
            :class:`bluesky_beamtime.plans.Preflight`: ``"refuse"`` it before anything
            moves, with a :exc:`~bluesky_beamtime.errors.DiskSpaceError`, ``"warn"`` of
            it, or None: nobody looks.
        margin
            Bytes that a run has to leave free; by default 32 MB.
        report
            Whether that line is printed, or what is called with it. It says how the run
            ended and what became of its frames.

        Raises
        ------
        ReadOnlyError
            The beamtime was opened with ``mode="r"``.
        """
        recorder = self._recorder
        if recorder is None:
            raise self._read_only("record")
        check = None
        if preflight is not None:
            from bluesky_beamtime.plans.preflight import MARGIN, Preflight

            check = Preflight(
                self._database.store,
                mode=preflight,
                recall=lambda device: last_appetites(self._database, device),
                warn=recorder.warn,
                margin=MARGIN if margin is None else margin,
            )
        attached = self._attached.get(id(RE))
        if attached is None:
            attached = Attachment(RE, self, self.next_scan_id, self._database.path)
            self._attached[id(RE)] = attached
        attached.check(check)
        attached.report(self._closing(report) if report else None)

    def _closing(
        self, report: bool | Callable[[str], object]
    ) -> Callable[[str, Mapping[str, Any]], None]:
        """Return what passes the closing line of each run on."""
        show = report if callable(report) else print

        def stopped(_: str, doc: Mapping[str, Any]) -> None:
            try:
                show(closing_line(self._runs.by_uid(doc["run_start"])))
            except Exception as error:
                # The run is over and recorded; nothing is left to stop.
                _logger.warning("no line about the end of a run: %s", error)

        return stopped

    def watch_subscribers(self, RE: RunEngine) -> SubscriberWatch:
        """Look, while runs go on, which callbacks make the plan wait.

        What each callback took is kept in the file when the run stops, and ``beamtime
        doctor`` names those that are slow.

        Returns
        -------
        bluesky_beamtime.recording.SubscriberWatch
            Its ``close`` ends it.

        Raises
        ------
        ReadOnlyError
            The beamtime was opened with ``mode="r"``.
        """
        if self._recorder is None:
            raise self._read_only("watch a RunEngine")
        return SubscriberWatch(RE, self._database)

    def detach(self, RE: RunEngine) -> None:
        """Undo :meth:`attach`; nothing happens if it is not attached.

        A run that is open, such as that of a plan that is paused, is recorded to its
        end, with the runs that begin before that; the next one is not.
        """
        attached = self._attached.pop(id(RE), None)
        if attached is not None:
            attached.undo()

    def next_scan_id(self, md: Mapping[str, Any] | None = None) -> int:
        """Return a new scan number, for ``RE.scan_id_source``.

        It is larger than every number that was used in this beamtime, by any process
        and before any crash, and larger than ``md["scan_id"]``, the RunEngine's last
        one.

        Parameters
        ----------
        md
            The RunEngine's metadata.
        """
        recorder = self._recorder
        if recorder is None:
            raise self._read_only("number scans")
        last = (md or {}).get("scan_id", 0)
        if not isinstance(last, int) or isinstance(last, bool):
            last = 0
        try:
            if self._following is not None:
                last = self._following.at_least(last)
            return reserve_scan_id(self._database, last)
        except BeamtimeError as error:
            if recorder.on_error == "raise":
                raise
            # The documents of this run will go to the journal; its number is the
            # RunEngine's next one, which is what it would be without a beamtime.
            recorder.warn(f"no scan number could be reserved: {error}")
            return last + 1

    @property
    def frames(self) -> FrameStore:
        """Where devices put their frames: one store for each run.

        Its folders are ``x.zarr/frames/<date>/<plan>_<scan number>``.

        Raises
        ------
        ReadOnlyError
            The beamtime was opened with ``mode="r"``.
        """
        if self._recorder is None:
            raise self._read_only("write frames")
        if self._frames is None:
            self._frames = FrameStore(
                self._database.store / "frames",
                name=self._acquisition_name,
                durability=self._database.durability,
            )
        return self._frames

    @property
    def path_provider(self) -> PathProvider:
        """Where ophyd-async detectors that write files of their own put them.

        ``x_files/<date>/<plan>_<scan number>``, beside the database: what they write
        is found, checked and served as the frames are, and moves with the folder.

        Raises
        ------
        ReadOnlyError
            The beamtime was opened with ``mode="r"``.
        """
        if self._recorder is None:
            raise self._read_only("write files")
        from bluesky_beamtime.devices.paths import OphydPathProvider

        return OphydPathProvider(self._database.files, self._acquisition_name)

    def _acquisition_name(self) -> str | None:
        """Return the folder name of the run that is open, None if there is none."""
        recorder = self._recorder
        runs = recorder.open_runs if recorder is not None else []
        return acquisition_name(runs[-1].plan_name, runs[-1].scan_id) if runs else None
