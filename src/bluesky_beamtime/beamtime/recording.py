"""Documents and frames on their way in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bluesky_beamtime.database.scan_ids import reserve_scan_id
from bluesky_beamtime.errors import BeamtimeError
from bluesky_beamtime.recording import (
    acquisition_name,
    help_tiled_writer,
)
from bluesky_beamtime.storage import FrameStore

if TYPE_CHECKING:
    from bluesky import RunEngine
    from ophyd_async.core import PathProvider


from bluesky_beamtime.beamtime.parts import Parts


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

    def attach(self, RE: RunEngine) -> None:
        """Record every run of a RunEngine, with scan numbers that go on.

        Subscribes to the documents, and makes :meth:`next_scan_id` the RunEngine's
        source of scan numbers. Attaching twice is attaching once.

        Raises
        ------
        ReadOnlyError
            The beamtime was opened with ``mode="r"``.
        """
        if self._recorder is None:
            raise self._read_only("record")
        if id(RE) in self._attached:
            return
        engine: Any = RE  # its methods lack annotations
        token: int = engine.subscribe(self)
        self._attached[id(RE)] = (RE, token, engine.scan_id_source)
        engine.scan_id_source = self.next_scan_id

    def detach(self, RE: RunEngine) -> None:
        """Undo :meth:`attach`; nothing happens if it is not attached."""
        attached = self._attached.pop(id(RE), None)
        if attached is None:
            return
        engine: Any
        engine, token, source = attached
        engine.unsubscribe(token)
        if getattr(engine.scan_id_source, "__self__", None) is self:
            engine.scan_id_source = source

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

        Raises
        ------
        ReadOnlyError
            The beamtime was opened with ``mode="r"``.
        """
        if self._recorder is None:
            raise self._read_only("write files")
        from bluesky_beamtime.devices.paths import OphydPathProvider

        return OphydPathProvider(
            self._database.store / "frames", self._acquisition_name
        )

    def _acquisition_name(self) -> str | None:
        """Return the folder name of the run that is open, None if there is none."""
        recorder = self._recorder
        runs = recorder.open_runs if recorder is not None else []
        return acquisition_name(runs[-1].plan_name, runs[-1].scan_id) if runs else None
