"""The runs on their way into one ScanStorage, and which of them fills it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bluesky_beamtime.errors import DocumentError, StoreStateError
from bluesky_beamtime.recording.scan_filling import ScanFilling

Document = Mapping[str, Any]
Claim = Callable[[ScanFilling], None]
logger = logging.getLogger(__name__)
# Documents of a run that may wait for another one: arrays in events fill the memory.
_MOST_HELD = 64


class _OccupiedError(StoreStateError):
    """Another run fills the storage, and is perhaps over without having said so."""


@dataclass(eq=False, slots=True)
class _Run:
    """A run that has begun."""

    filling: ScanFilling
    since: int
    """Number of the document from which on it wants the storage."""
    heard: int
    """Number of its newest document."""
    held: list[tuple[str, Document]] = field(default_factory=list[tuple[str, Document]])
    """Documents that wait until it is known whether another run goes on."""
    given_up: bool = False
    """Whether its array was saved because nothing came of it any more."""

    @property
    def fills(self) -> bool:
        """Whether the storage is taken by its array."""
        return self.filling.reserved and not self.given_up

    @property
    def patient(self) -> bool:
        """Whether it can wait for another one still longer."""
        return self.held[-1][0] != "stop" and len(self.held) < _MOST_HELD


class ScanRuns:
    """Hands the documents of each run on to its array; one run fills at a time.

    A run that finds the storage taken waits for what comes next. A document of the run
    that fills it says that this one goes on, and the other is left out. But if nothing
    comes of it until the new run has ended, or cannot wait any longer, it is over
    without a stop document, as when the subscriber was taken from the RunEngine
    meanwhile: it is saved with what it has, and nothing of the new one is lost. Should
    it go on after all, the rest becomes an array of its own.

    Parameters
    ----------
    make
        Makes the filling of a run, of its start document and what is to be called
        before it reserves the storage.
    note
        Told what went wrong, and the error.
    """

    def __init__(
        self,
        make: Callable[[Document, Claim], ScanFilling],
        note: Callable[[str, Exception], None],
    ) -> None:
        self._make, self._note = make, note
        self._runs: dict[str, _Run] = {}
        self._run_of: dict[str, str] = {}
        self._dropped: dict[str, str] = {}
        self._without_run: dict[str, Document] = {}
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self._runs)

    def take(self, name: str, doc: Document) -> None:
        """Take a document."""
        if name == "stream_resource" and not doc.get("run_start"):
            # Its first StreamDatum says whose it is, by the descriptor.
            self._without_run[doc["uid"]] = doc
            return
        if name == "stream_datum":
            resource = self._without_run.pop(doc["stream_resource"], None)
            if resource is not None:
                owner = self._run_uid(name, doc)
                self.take("stream_resource", {**resource, "run_start": owner})
        self._count += 1
        uid = self._run_uid(name, doc)
        if name == "start":
            filling = self._make(doc, self._claim)
            self._runs[uid] = _Run(filling, self._count, self._count)
        elif uid in self._runs:
            run = self._runs[uid]
            run.heard = self._count
            if run.given_up and name != "stop":
                run.given_up, run.since = False, self._count
                logger.warning(
                    "%s goes on: what is measured from now on becomes an array of its "
                    "own",
                    run.filling.label,
                )
            if run.held:
                run.held.append((name, doc))
            else:
                self._hand_on(uid, name, doc)
            self._settle()
        elif name != "stop" and uid in self._dropped:
            label = self._dropped.pop(uid)
            error = StoreStateError(
                f"{label} went on after two later runs had come without any of it, and "
                "what it measured then is in no array; give runs that overlap a "
                "storage and a subscriber each"
            )
            self._note(f"the array of {label} ends early", error)
        if name == "stop":
            self._dropped.pop(uid, None)
            self._run_of = {k: run for k, run in self._run_of.items() if run != uid}

    def refresh(self) -> None:
        """Write the axes of what is being filled."""
        for run in self._runs.values():
            try:
                run.filling.refresh()
            except Exception:
                # The end of the run writes them, or says why not.
                logger.debug(
                    "axes of %s not written yet", run.filling.label, exc_info=True
                )

    def end(self) -> None:
        """Save all runs, those that wait as well."""
        while self._runs:
            for uid in [uid for uid, run in self._runs.items() if not run.held]:
                self._end(uid, None)
            self._settle()

    # ----------------------------------------------------------------- one document

    def _run_uid(self, name: str, doc: Document) -> str:
        if name in ("descriptor", "stream_resource"):
            self._run_of[doc["uid"]] = doc["run_start"]
            return doc["run_start"]
        if name == "start":
            return doc["uid"]
        if name == "stop":
            return doc["run_start"]
        return self._run_of.get(doc.get("descriptor", ""), "")

    def _hand_on(self, uid: str, name: str, doc: Document) -> None:
        if name == "stop":
            self._end(uid, doc)
        else:
            self._fill(uid, name, doc)

    def _fill(self, uid: str, name: str, doc: Document) -> None:
        run = self._runs[uid]
        filling = run.filling
        before = len(filling.missed)
        try:
            filling.take(name, doc)
        except _OccupiedError:
            run.held.append((name, doc))
        except DocumentError as error:
            del self._runs[uid]
            logger.warning("no array is made of %s: %s", filling.label, error)
        except StoreStateError as error:
            del self._runs[uid]
            self._note(f"the array of {filling.label} ends early", error)
        except Exception as error:
            if name == "descriptor":
                del self._runs[uid]
                self._note(f"no array is made of {filling.label}", error)
            elif not before:
                # Each point may fail for the same reason; the end counts them.
                logger.error(
                    "a point of %s was not taken yet: %s", filling.label, error
                )

    def _end(self, uid: str, stop: Document | None) -> None:
        self._save(self._runs.pop(uid), stop)

    def _save(self, run: _Run, stop: Document | None) -> None:
        try:
            run.filling.end(stop)
        except Exception as error:
            self._note(f"the array of {run.filling.label} is not complete", error)

    # ------------------------------------------------------------------- whose turn

    def _claim(self, filling: ScanFilling) -> None:
        for other in self._runs.values():
            if other.filling is not filling and other.fills:
                raise _OccupiedError(_overlap(filling, other))

    def _settle(self) -> None:
        """Let each run that waits go on, or leave it out, if it is known which."""
        for uid, run in list(self._runs.items()):
            if not run.held:
                continue
            others = [other for other in self._runs.values() if other.fills]
            going_on = [other for other in others if other.heard > run.since]
            if going_on:
                del self._runs[uid]
                error = StoreStateError(_overlap(run.filling, going_on[0]))
                self._note(f"no array is made of {run.filling.label}", error)
            elif not others:
                self._go_on(uid, run)
            elif not run.patient:
                self._give_up_before(run)
                self._go_on(uid, run)

    def _go_on(self, uid: str, run: _Run) -> None:
        held, run.held = run.held, []
        for name, doc in held:
            if uid in self._runs:
                self._hand_on(uid, name, doc)

    def _give_up_before(self, new: _Run) -> None:
        """Save what fills the storage or waits for it, and was silent since."""
        for uid in [uid for uid, run in self._runs.items() if run.given_up]:
            # The last one may come back; to keep them all would fill the memory.
            self._dropped[uid] = self._runs.pop(uid).filling.label
        silent = [(k, run) for k, run in self._runs.items() if run.heard < new.since]
        for uid, run in sorted(silent, key=lambda pair: not pair[1].fills):
            self._go_on(uid, run)
            if run.fills:
                logger.warning(
                    "nothing has come of %s since %s began: its array is saved with "
                    "what there is",
                    run.filling.label,
                    new.filling.label,
                )
                run.given_up = True
                self._save(run, None)


def _overlap(filling: ScanFilling, other: _Run) -> str:
    return (
        f"{filling.label} came while {other.filling.label} went on and filled the same "
        "storage; give runs that overlap a storage and a subscriber each"
    )
