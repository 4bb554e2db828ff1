"""The comparison of documents itself: it must fail where it should."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from event_model import pack_datum_page, pack_event_page

from bluesky_beamtime.testing import assert_documents_equal

EVENT: dict[str, Any] = {
    "uid": "e1",
    "time": 1.0,
    "data": {"a": 1, "b": [1.0, float("nan")], "c": np.arange(3, dtype="<u2")},
    "timestamps": {"a": 1.0, "b": 1.0, "c": 1.0},
    "seq_num": 1,
    "filled": {},
    "descriptor": "d",
}
SECOND = {**EVENT, "uid": "e2", "seq_num": 2}
DATUM = {"resource": "r", "datum_kwargs": {"n": 1}, "datum_id": "r/1"}
DOCS = [("start", {"uid": "s", "x": (1, 2)}), ("event", EVENT), ("datum", DATUM)]


def change(path: str, value: Any) -> list[tuple[str, Any]]:
    docs = copy.deepcopy(DOCS)
    target: Any = docs[1][1]
    *folders, last = path.split(".")
    for key in folders:
        target = target[key]
    target[last] = value
    return docs


def test_equal_documents_are_equal() -> None:
    assert_documents_equal(copy.deepcopy(DOCS), DOCS)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seq_num", np.int64(1)),
        ("time", np.float64(1.0)),
        ("data.b", (1.0, np.nan)),
        ("data.b", [np.float32(1.0), float("nan")]),
        ("uid", np.str_("e1")),
    ],
)
def test_what_does_not_count(path: str, value: Any) -> None:
    assert_documents_equal(change(path, value), DOCS)
    assert_documents_equal(DOCS, change(path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seq_num", 2),
        ("seq_num", 1.0),
        ("seq_num", True),
        ("seq_num", "1"),
        ("seq_num", np.array(1)),
        ("time", 1),
        ("time", float("nan")),
        ("data.a", None),
        ("data.b", [1.0]),
        ("data.b", [1.0, 2.0]),
        ("data.b", [1.0, None]),
        ("data.b", [1, float("nan")]),
        ("data.b", np.array([1.0, np.nan])),
        ("data.b", {"0": 1.0}),
        ("data.c", [0, 1, 2]),
        ("data.c", np.arange(3, dtype="<i2")),
        ("data.c", np.arange(3, dtype=">u2")),
        ("data.c", np.arange(3, dtype="<u2")[:, None]),
        ("data.c", np.array([0, 1, 3], dtype="<u2")),
        ("data.d", 1),
        ("filled", {"a": False}),
        ("filled", None),
        ("more", 1),
    ],
)
def test_every_difference_is_found_both_ways(path: str, value: Any) -> None:
    with pytest.raises(AssertionError, match=r"document 1 \(event\)"):
        assert_documents_equal(change(path, value), DOCS)
    with pytest.raises(AssertionError, match=r"document 1 \(event\)"):
        assert_documents_equal(DOCS, change(path, value))


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        (0.0, -0.0),
        (1 + 0j, 1.0),
        (complex(0, 0.0), complex(0, -0.0)),
        (b"a", "a"),
        (float("inf"), float("-inf")),
        (np.array([0.0]), np.array([-0.0])),
        (np.array([1.0, np.nan]), np.array([np.nan, 1.0])),
        (np.array([1, "a"], dtype=object), np.array([1.0, "a"], dtype=object)),
        (np.array([(1,)], dtype=[("a", "i4")]), np.array([(2,)], dtype=[("a", "i4")])),
        (np.array([(1,)], dtype=[("a", "i4")]), np.array([(1,)], dtype=[("b", "i4")])),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ([], {}),
        ("", None),
        (0, False),
        (0, None),
    ],
)
def test_values_that_differ(actual: Any, expected: Any) -> None:
    for one, other in ((actual, expected), (expected, actual)):
        with pytest.raises(AssertionError):
            assert_documents_equal([("x", {"v": one})], [("x", {"v": other})])
    same = copy.deepcopy(actual)
    assert_documents_equal([("x", {"v": same})], [("x", {"v": actual})])


def test_number_order_and_names_count() -> None:
    with pytest.raises(AssertionError, match="missing"):
        assert_documents_equal(DOCS[:-1], DOCS)
    with pytest.raises(AssertionError, match="not expected"):
        assert_documents_equal(DOCS, DOCS[:-1])
    with pytest.raises(AssertionError, match="document 0"):
        assert_documents_equal([DOCS[1], DOCS[0], DOCS[2]], DOCS)
    with pytest.raises(AssertionError, match="expected 'stop'"):
        assert_documents_equal([("start", {})], [("stop", {})])
    assert_documents_equal([], [])


def test_key_order_counts() -> None:
    docs = copy.deepcopy(DOCS)
    docs[1] = ("event", dict(reversed(list(docs[1][1].items()))))
    with pytest.raises(AssertionError, match="in the order"):
        assert_documents_equal(docs, DOCS)


def test_pages_stand_for_what_is_in_them() -> None:
    page = ("event_page", pack_event_page(EVENT, SECOND))
    singles = [("event", EVENT), ("event", SECOND)]
    assert_documents_equal([page], singles)
    assert_documents_equal(singles, [page])
    bulk = ("bulk_events", {"d": [EVENT, SECOND]})
    assert_documents_equal([bulk], singles)
    wrong = ("event_page", pack_event_page(SECOND, EVENT))
    with pytest.raises(AssertionError, match="document 0"):
        assert_documents_equal([wrong], singles)
    with pytest.raises(AssertionError, match="missing"):
        assert_documents_equal([("event_page", pack_event_page(EVENT))], singles)


def test_datum_pages_stand_for_what_is_in_them() -> None:
    second = {"resource": "r", "datum_kwargs": {"n": 2}, "datum_id": "r/2"}
    singles = [("datum", DATUM), ("datum", second)]
    assert_documents_equal([("datum_page", pack_datum_page(DATUM, second))], singles)
    bulk = {
        "resource": "r",
        "datum_ids": ["r/1", "r/2"],
        "datum_kwarg_list": [{"n": 1}, {"n": 2}],
    }
    assert_documents_equal(singles, [("bulk_datum", bulk)])
    with pytest.raises(AssertionError):
        assert_documents_equal([("datum_page", pack_datum_page(DATUM, DATUM))], singles)
