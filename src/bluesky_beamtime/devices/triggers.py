"""What starts an exposure, as a frame source declares it and a plan asks for it."""

from __future__ import annotations

from collections.abc import Collection
from inspect import getattr_static
from typing import Any, Protocol, cast, runtime_checkable

from ophyd_async.core import DetectorTrigger

from bluesky_beamtime.errors import TriggerError

_ROUNDING = 1e-9


@runtime_checkable
class TriggeredSource(Protocol):
    """What a frame source has besides, if more than its own clock starts exposures.

    A source without it is triggered internally, one exposure right after the other.
    With an external trigger an exposure begins for each pulse after ``start``, which
    then comes when the detector is prepared, before the kickoff.

    Attributes
    ----------
    triggers : collection of DetectorTrigger
        Those that it knows.
    deadtime : float
        Seconds that it needs between two exposures, at the exposure that is set: read
        after ``configure``. A plan that asks for less is refused.
    """

    @property
    def triggers(self) -> Collection[DetectorTrigger]:
        """The triggers that it knows."""
        ...

    @property
    def deadtime(self) -> float:
        """Seconds needed between two exposures."""
        ...

    async def set_trigger(self, trigger: DetectorTrigger, deadtime: float) -> None:
        """Use this trigger from the next start on.

        Called for every preparation, after ``configure``.

        Parameters
        ----------
        trigger
            One of :attr:`triggers`. With ``EXTERNAL_LEVEL`` the width of the pulse is
            the exposure.
        deadtime
            Seconds to leave between exposures that are triggered internally: 0 for as
            little as possible, or at least :attr:`deadtime`.
        """
        ...


class SourceTriggers:
    """The triggers of any frame source, whether it declares some or not.

    Parameters
    ----------
    source
        The frame source.

    Raises
    ------
    TypeError
        It declares triggers and cannot be told which to use.
    """

    def __init__(self, source: Any) -> None:
        self._source = source
        # Looked up without running properties: a source may need to be connected first.
        self._settable = getattr_static(source, "set_trigger", None) is not None
        if getattr_static(source, "triggers", None) is not None and not self._settable:
            raise TypeError(
                f"{source!r} declares triggers, but has no set_trigger(trigger, "
                "deadtime) to choose one"
            )

    @property
    def supported(self) -> set[DetectorTrigger]:
        """Triggers that can be asked for."""
        declared = getattr(self._source, "triggers", None)
        return {DetectorTrigger.INTERNAL} if declared is None else set(declared)

    @property
    def deadtime(self) -> float | None:
        """Seconds needed between exposures; None if the source does not say."""
        declared: Any = getattr(self._source, "deadtime", None)
        return None if declared is None else float(declared)

    def check(self, name: str, trigger: DetectorTrigger) -> None:
        """Refuse a trigger that the source does not know.

        Raises
        ------
        TriggerError
            It does not; the message names those that it knows.
        """
        if trigger not in self.supported:
            known = ", ".join(one.name for one in DetectorTrigger if self._knows(one))
            raise TriggerError(
                f"{name} cannot be triggered by {trigger.name}; {self._source!r} "
                f"supports {known}: prepare it with TriggerInfo(trigger=…) of these, "
                "or declare more in the source's triggers"
            )

    def _knows(self, trigger: DetectorTrigger) -> bool:
        return trigger in self.supported

    async def set(self, trigger: DetectorTrigger, deadtime: float) -> None:
        """Tell the source, after its exposure was set.

        Raises
        ------
        TriggerError
            It needs more time between exposures, or cannot leave so much.
        """
        least = self.deadtime or 0.0
        if 0 < deadtime < least - _ROUNDING:
            raise TriggerError(
                f"{self._source!r} needs {least:g} s between exposures, so that a "
                f"deadtime of {deadtime:g} s is too short; ask for {least:g} s or "
                "more, or for 0 to get the shortest"
            )
        internal = trigger is DetectorTrigger.INTERNAL
        if self._settable:
            source = cast(TriggeredSource, self._source)
            await source.set_trigger(trigger, deadtime if internal else 0.0)
        elif internal and deadtime > least + _ROUNDING:
            raise TriggerError(
                f"{self._source!r} exposes as fast as it can, so that a deadtime of "
                f"{deadtime:g} s cannot be kept; leave it at 0, or give the source a "
                "set_trigger(trigger, deadtime)"
            )
