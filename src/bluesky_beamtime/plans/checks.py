"""Arguments of plans, checked before a run is opened."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bluesky.protocols import Collectable, Flyable, Movable, Preparable, Readable


def check_detectors(detectors: Sequence[Any]) -> list[Any]:
    """Return the detectors as a list.

    Raises
    ------
    ValueError
        There are none, one stands there twice, or one cannot be read.
    """
    if isinstance(detectors, Readable):
        raise ValueError(f"give a list of detectors: [{_name(detectors)}]")
    found = list(detectors)
    if not found:
        raise ValueError("a plan needs at least one detector")
    names = [_name(detector) for detector in found]
    for detector, name in zip(found, names, strict=True):
        if not isinstance(detector, (Readable, Collectable)):
            raise ValueError(
                f"{name} is no detector: it can neither be read nor collected"
            )
        if names.count(name) > 1:
            raise ValueError(f"detector {name!r} is given more than once")
    return found


def check_flyers(detectors: Sequence[Any]) -> list[Any]:
    """Return the detectors as a list if each can take frames by itself.

    Raises
    ------
    ValueError
        As :func:`check_detectors`, or one has to be triggered for each point.
    """
    found = check_detectors(detectors)
    for detector in found:
        for ability in (Preparable, Flyable, Collectable):
            if not isinstance(detector, ability):
                raise ValueError(
                    f"detector {_name(detector)!r} cannot fly (it is not "
                    f"{ability.__name__}); take it in a step scan instead"
                )
    return found


def check_number(number: int, what: str) -> int:
    """Return a number of points or frames.

    Raises
    ------
    ValueError
        It is not an integer from 1 on.
    """
    try:
        whole = int(number)
    except (TypeError, ValueError):
        whole = 0
    if isinstance(number, bool) or whole != number or whole < 1:
        raise ValueError(f"{what} must be an integer from 1 on, not {number!r}")
    return whole


def check_count(number: int, what: str) -> int:
    """Return a number of frames that may be 0.

    Raises
    ------
    ValueError
        It is not an integer from 0 on.
    """
    if isinstance(number, bool) or number != 0:
        try:
            return check_number(number, what)
        except ValueError:
            raise ValueError(
                f"{what} must be an integer from 0 on, not {number!r}"
            ) from None
    return 0


def check_period(seconds: float, what: str = "the period") -> float:
    """Return a number of seconds that may be 0.

    Raises
    ------
    ValueError
        It is negative, or no finite number.
    """
    if not (_is_finite(seconds) and seconds >= 0):
        raise ValueError(
            f"{what} must be a number of seconds from 0 on, not {seconds!r}"
        )
    return float(seconds)


def check_flush_period(seconds: float) -> float:
    """Return the seconds between two announcements of frames.

    Raises
    ------
    ValueError
        It is not a positive number.
    """
    if not (_is_finite(seconds) and seconds > 0):
        raise ValueError(f"flush_period must be positive, not {seconds!r}")
    return float(seconds)


def check_motor(motor: Any, what: str) -> None:
    """Check a motor, or whatever else can be set and read.

    Raises
    ------
    ValueError
        It cannot.
    """
    for ability in (Movable, Readable):
        if not isinstance(motor, ability):
            raise ValueError(
                f"{what} must be something that moves: {_name(motor)!r} is not "
                f"{ability.__name__}"
            )


def check_range(start: float, stop: float, what: str) -> None:
    """Check where an axis begins and ends.

    Raises
    ------
    ValueError
        One is not a finite number.
    """
    for end in (start, stop):
        if not _is_finite(end):
            raise ValueError(f"{what} must be finite numbers, not {end!r}")


def check_grid(args: Sequence[Any]) -> None:
    """Check ``motor, start, stop, number of points`` of each axis.

    Raises
    ------
    ValueError
        They are something else.
    """
    if not args or len(args) % 4:
        raise ValueError(
            "a grid needs 'motor, start, stop, number of points' for each axis, got "
            f"{len(args)} arguments"
        )
    motors: list[Any] = []
    for number in range(0, len(args), 4):
        motor, start, stop, points = args[number : number + 4]
        check_motor(motor, f"argument {number + 1}")
        name = _name(motor)
        check_range(start, stop, f"the ends of {name}")
        check_number(points, f"the number of points of {name}")
        motors.append(motor)
    _check_different(motors)


def check_positions(
    args: Sequence[Any], *, together: bool
) -> list[tuple[Any, list[Any]]]:
    """Return motors with their positions, from ``motor1, positions1, motor2, …``.

    Parameters
    ----------
    args
        The arguments.
    together
        Whether all need equally many.

    Raises
    ------
    ValueError
        They are something else.
    """
    if not args or len(args) % 2:
        raise ValueError(
            "give 'motor, positions' for each motor, such as x, [0, 1, 4]; got "
            f"{len(args)} arguments"
        )
    pairs: list[tuple[Any, list[Any]]] = []
    for number in range(0, len(args), 2):
        motor, given = args[number : number + 2]
        check_motor(motor, f"argument {number + 1}")
        name = _name(motor)
        try:
            positions = list(given)
        except TypeError:
            positions = []
        if not positions or not all(map(_is_finite, positions)):
            raise ValueError(
                f"{name} needs a list of finite positions, not {given!r:.80}"
            )
        pairs.append((motor, positions))
    _check_different([motor for motor, _ in pairs])
    lengths = {_name(motor): len(positions) for motor, positions in pairs}
    if together and len(set(lengths.values())) > 1:
        told = ", ".join(f"{size} of {name}" for name, size in lengths.items())
        raise ValueError(
            f"motors that move together need equally many positions, not {told}; "
            "grid=True combines each with each"
        )
    return pairs


def _check_different(motors: Sequence[Any]) -> None:
    for number, motor in enumerate(motors):
        if any(motor is other for other in motors[:number]):
            raise ValueError(f"motor {_name(motor)!r} is given more than once")


def _is_finite(value: Any) -> bool:
    try:
        return not isinstance(value, (bool, str)) and math.isfinite(value)
    except TypeError:
        return False


def check_exposure(exposure: float | None) -> float | None:
    """Return an exposure in seconds, None to keep what is set.

    Raises
    ------
    ValueError
        It is not a positive number.
    """
    if exposure is None:
        return None
    if not (_is_finite(exposure) and exposure > 0):
        raise ValueError(
            f"the exposure must be a positive number of seconds, or None to keep what "
            f"is set, not {exposure!r}"
        )
    return float(exposure)


def _name(device: Any) -> str:
    return str(getattr(device, "name", "") or repr(device))
