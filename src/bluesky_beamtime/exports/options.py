"""What a format can be asked for: the keywords of the function that writes it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from bluesky_beamtime.errors import ExportError

_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False}
_TRUTHS["0"] = False


def known_options(write: Callable[..., Any]) -> dict[str, Any] | None:
    """Return the options of a format and their types; None if it takes any."""
    parameters = inspect.signature(write).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    hints = get_type_hints(write)
    return {
        parameter.name: hints.get(parameter.name, Any)
        for parameter in parameters
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def check_options(
    name: str, write: Callable[..., Any], options: Mapping[str, Any]
) -> None:
    """Refuse options that a format does not understand.

    Raises
    ------
    ExportError
        There is no such option, or it has no such value.
    """
    known = known_options(write)
    for option, value in options.items() if known is not None else ():
        kind = _kind_of(name, option, known or {})
        if get_origin(kind) is Literal and value not in get_args(kind):
            choices = " or ".join(repr(choice) for choice in get_args(kind))
            raise ExportError(f"{name} understands {option}={choices}, not {value!r}")


def parse_options(
    name: str, write: Callable[..., Any], texts: Iterable[str]
) -> dict[str, Any]:
    """Return options that a user has written as ``key=value``.

    Raises
    ------
    ExportError
        One of them is not understood.
    """
    known = known_options(write)
    options: dict[str, Any] = {}
    for text in texts:
        option, equals, value = text.partition("=")
        if not equals:
            raise ExportError(f"an option is key=value, not {text!r}")
        kind = Any if known is None else _kind_of(name, option, known)
        options[option] = _parsed(name, option, value, kind)
    return options


def _kind_of(name: str, option: str, known: Mapping[str, Any]) -> Any:
    if option in known:
        return known[option]
    has = f"it has {', '.join(known)}" if known else "it has none"
    raise ExportError(f"{name} has no option {option!r}; {has}")


def _parsed(name: str, option: str, text: str, kind: Any) -> Any:
    try:
        if kind is bool:
            return _TRUTHS[text.lower()]
        return kind(text) if kind in (int, float) else text
    except (KeyError, ValueError) as error:
        what = {bool: "yes or no", int: "a whole number", float: "a number"}[kind]
        raise ExportError(f"{name}: {option} is {what}, not {text!r}") from error
