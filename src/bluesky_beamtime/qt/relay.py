"""From a signal that may come on any thread to a slot in the thread of the windows."""

from __future__ import annotations

from typing import Any, cast

from psygnal import SignalInstance

from bluesky_beamtime.qt.binding import QtCore


class _Relay(QtCore.QObject):
    rung = QtCore.Signal()


def follow(
    signal: SignalInstance, receiver: QtCore.QObject, slot: QtCore.SignalInstance
) -> None:
    """Ring ``slot`` of ``receiver`` whenever ``signal`` comes, until it is destroyed.

    On the thread of the receiver at once, from others through its event loop, which
    drops what arrives too late. Neither side keeps the other alive.

    Parameters
    ----------
    signal
        Of psygnal; what it carries is not handed on.
    receiver
        Whose end ends it.
    slot
        A Qt signal of the receiver, which is emitted.
    """
    # Without a parent: a thread may be ringing while the receiver goes.
    relay = _Relay()
    relay.rung.connect(slot)

    def ring() -> None:
        relay.rung.emit()

    def let_go() -> None:
        cast("Any", signal).disconnect(ring)

    signal.connect(ring)
    receiver.destroyed.connect(let_go)
