"""Help for tests of what records and reads documents."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np

from bluesky_beamtime.database.kinds import is_array, is_mapping, is_model

NamedDocument = tuple[str, Mapping[str, Any]]

# A page has no order of keys for its events; this is the one that they are compared in.
_EVENT_KEYS = ("uid", "time", "data", "timestamps", "seq_num", "filled", "descriptor")
_DATUM_KEYS = ("resource", "datum_kwargs", "datum_id")


def assert_documents_equal(
    actual: Iterable[NamedDocument], expected: Iterable[NamedDocument]
) -> None:
    """Check that two sequences of ``(name, document)`` say the same.

    Everything counts: the number and order of the documents, their keys and the order
    of those, every value and its type. What does not count:

    - pages and bulk documents may stand for the single documents in them, and the other
      way round; where one side has a page, the order of its events' top-level keys and
      an empty ``filled`` do not count;
    - a tuple is a list, a subclass of ``str`` or ``dict`` is its base, a pydantic model
      (such as a table of ophyd-async) the ``dict`` of its fields;
    - a NumPy scalar is the Python number of the same value; but an integer is no float
      and no bool, and a zero-dimensional array is no scalar;
    - arrays are equal in dtype, shape and values;
    - NaN equals NaN; but 0.0 is not -0.0.

    Parameters
    ----------
    actual, expected
        Such as ``run.documents()`` and what a RunEngine emitted.

    Raises
    ------
    AssertionError
        They differ; the message says which document, where in it, and how.
    """
    found, wanted = list(_singles(actual)), list(_singles(expected))
    for number, (one, other) in enumerate(zip(found, wanted, strict=False)):
        name, doc, from_page = one
        expected_name, expected_doc, expected_from_page = other
        where = f"document {number}"
        if name != expected_name:
            raise AssertionError(f"{where}: expected {expected_name!r}, got {name!r}")
        if from_page or expected_from_page:
            doc, expected_doc = _unordered(name, doc), _unordered(name, expected_doc)
        _compare(doc, expected_doc, f"{where} ({name})")
    if len(found) != len(wanted):
        longer, what = (
            (found, "not expected") if len(found) > len(wanted) else (wanted, "missing")
        )
        name, doc, _ = longer[min(len(found), len(wanted))]
        raise AssertionError(
            f"{len(found)} documents, expected {len(wanted)}; the first {what} is "
            f"{name!r}: {str(doc)[:200]}"
        )


# ------------------------------------------------------------------------------ pages


def _singles(
    documents: Iterable[NamedDocument],
) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    """Yield single documents, and whether each came from a page."""
    for name, doc in documents:
        if name == "event_page":
            for event in _rows(doc, ("uid", "time", "seq_num"), _EVENT_KEYS):
                yield "event", event, True
        elif name == "datum_page":
            for datum in _rows(doc, ("datum_id",), _DATUM_KEYS):
                yield "datum", datum, True
        elif name == "bulk_events":
            for events in doc.values():
                for event in events:
                    yield "event", event, True
        elif name == "bulk_datum":
            for datum_id, kwargs in zip(
                doc["datum_ids"], doc["datum_kwarg_list"], strict=True
            ):
                datum = {
                    "resource": doc["resource"],
                    "datum_kwargs": kwargs,
                    "datum_id": datum_id,
                }
                yield "datum", datum, True
        else:
            yield name, doc, False


def _rows(
    page: Mapping[str, Any], columns: Sequence[str], keys: Sequence[str]
) -> Iterator[dict[str, Any]]:
    tables = ("data", "timestamps", "filled", "datum_kwargs")
    for number in range(len(page[columns[0]])):
        row: dict[str, Any] = {}
        for key in dict.fromkeys([*keys, *page]):
            if key in columns:
                row[key] = page[key][number]
            elif key in tables:
                table = cast("Mapping[str, Any]", page.get(key, {}))
                row[key] = {name: column[number] for name, column in table.items()}
            elif key in page:
                row[key] = page[key]
        yield row


def _unordered(name: str, doc: Mapping[str, Any]) -> dict[str, Any]:
    usual = _EVENT_KEYS if name == "event" else _DATUM_KEYS
    keys = [key for key in usual if key in doc] + sorted(set(doc) - set(usual))
    ordered = {key: doc[key] for key in keys}
    if name == "event":
        ordered.setdefault("filled", {})
        ordered["filled"] = ordered.pop("filled")
    return ordered


# ------------------------------------------------------------------------- comparison


def _compare(actual: Any, expected: Any, where: str) -> None:
    actual, expected = _plain(actual), _plain(expected)
    if isinstance(expected, np.ndarray) or isinstance(actual, np.ndarray):
        _compare_arrays(actual, expected, where)
    elif isinstance(expected, dict):
        _compare_mappings(actual, cast("dict[Any, Any]", expected), where)
    elif isinstance(expected, list):
        items = cast("list[Any]", expected)
        if not isinstance(actual, list) or len(cast("list[Any]", actual)) != len(items):
            raise _difference(actual, expected, where)
        for number, item in enumerate(items):
            _compare(actual[number], item, f"{where}[{number}]")
    elif type(actual) is not type(expected) or not _same_scalar(actual, expected):
        raise _difference(actual, expected, where)


def _plain(value: Any) -> Any:
    """Return a value as its base type, where the difference does not count."""
    if isinstance(value, np.generic):
        scalar = cast("np.generic[Any]", value)
        # Extended precision and times are no Python numbers.
        lossy = scalar.dtype.char in "gG" or scalar.dtype.kind in "mMV"
        return np.asarray(scalar) if lossy else scalar.item()
    if isinstance(value, tuple):
        return list(cast("tuple[Any, ...]", value))
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    return dict(value) if is_mapping(value) or is_model(value) else value


def _same_scalar(actual: Any, expected: Any) -> bool:
    if isinstance(expected, float):
        if math.isnan(expected):
            return math.isnan(actual)
        return actual == expected and math.copysign(1, actual) == math.copysign(
            1, expected
        )
    if isinstance(expected, complex):
        return _same_scalar(actual.real, expected.real) and _same_scalar(
            actual.imag, expected.imag
        )
    return bool(actual == expected)


def _compare_mappings(actual: Any, expected: dict[Any, Any], where: str) -> None:
    if not isinstance(actual, dict):
        raise _difference(actual, expected, where)
    keys, wanted = list(cast("dict[Any, Any]", actual)), list(expected)
    if keys != wanted:
        missing = [key for key in wanted if key not in keys]
        more = [key for key in keys if key not in wanted]
        if missing or more:
            raise AssertionError(
                f"{where}: keys missing {missing}, not expected {more}"
            )
        raise AssertionError(f"{where}: keys in the order {keys}, expected {wanted}")
    for key, value in expected.items():
        _compare(actual[key], value, f"{where}[{key!r}]")


def _compare_arrays(actual: Any, expected: Any, where: str) -> None:
    if not (is_array(actual) and is_array(expected)):
        raise _difference(actual, expected, where)
    if actual.dtype != expected.dtype or actual.shape != expected.shape:
        raise AssertionError(
            f"{where}: an array of {actual.dtype} {actual.shape}, expected "
            f"{expected.dtype} {expected.shape}"
        )
    if expected.dtype.kind in "OT":
        for index in np.ndindex(expected.shape):
            _compare(actual[index], expected[index], f"{where}[{index}]")
        return
    if expected.dtype.names:
        for name in expected.dtype.names:
            _compare_arrays(actual[name], expected[name], f"{where}[{name!r}]")
        return
    same = np.asarray(actual == expected)
    if expected.dtype.kind in "fcmM":
        same = same | ((actual != actual) & (expected != expected))
    if expected.dtype.kind == "f":
        known = ~np.isnan(expected)
        same = same & (~known | (np.signbit(actual) == np.signbit(expected)))
    if not same.all():
        first = tuple(int(n) for n in np.argwhere(~same)[0])
        raise AssertionError(
            f"{where}: {int((~same).sum())} of {same.size} values differ, the first at "
            f"{first}: {actual[first]!r}, expected {expected[first]!r}"
        )


def _difference(actual: Any, expected: Any, where: str) -> AssertionError:
    return AssertionError(
        f"{where}: {_described(actual)}, expected {_described(expected)}"
    )


def _described(value: Any) -> str:
    text = repr(value)
    if len(text) > 100:
        text = f"{text[:100]}…"
    return f"{text} ({type(value).__name__})"
