"""Values as JSON text, and back."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import json
import math
import pathlib
import sqlite3
import uuid
from collections import OrderedDict, UserDict, defaultdict, namedtuple
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime.database import decode, encode
from bluesky_beamtime.database.encoding import ArrayReference, encode_plain
from bluesky_beamtime.errors import DocumentError
from bluesky_beamtime.testing import assert_documents_equal


class Colour(enum.Enum):
    RED = "red"


class Mode(enum.StrEnum):
    FAST = "fast"


Point = namedtuple("Point", "x y")


def same(actual: Any, expected: Any) -> None:
    assert_documents_equal([("x", {"v": actual})], [("x", {"v": expected})])


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -(2**63),
        2**64 - 1,
        2**64,
        -(2**63) - 1,
        2**70,
        -(10**5000),
        0.0,
        -0.0,
        5e-324,
        1.7976931348623157e308,
        1e16,
        float("nan"),
        float("inf"),
        float("-inf"),
        "",
        "$float",
        "null",
        "é\0\u2028😀",
        "\ud800 alone",
        b"\x00\xff",
        1 - 2j,
        complex("nan"),
        complex(0.0, -0.0),
        [],
        [[], [None]],
        {},
        {"": {}},
        {"$float": "nan"},
        {"$$": 1, "$": 2},
        {"$ndarray": {"$bytes": "!"}},
        {"\ud800": 1},
        {1: "a", (1, 2): "b", None: "c"},
        dt.datetime(2026, 11, 20, 8, 30, tzinfo=dt.UTC),
        dt.datetime(2026, 11, 20, 8, 30, 0, 1),
        dt.date(2026, 11, 20),
        dt.time(8, 30),
        dt.timedelta(days=-1, microseconds=3),
        decimal.Decimal("1.10"),
        pathlib.PurePosixPath("/a/b"),
        {1, 2},
        frozenset({("a", 1)}),
        np.arange(6, dtype=">u2").reshape(2, 3),
        np.asfortranarray(np.ones((2, 3), np.float32)),
        np.zeros((0, 4), np.int8),
        np.array(5.0),
        np.array(["a", "éé"]),
        np.array([b"a"]),
        np.array([1, "a", None, [1, 2]], dtype=object),
        np.array(["a", "b" * 99], dtype=np.dtypes.StringDType()),
        np.array([(1, 2.5)], dtype=[("a", "<i4"), ("b", ">f8")]),
        np.array(["2026-11-20"], dtype="datetime64[D]"),
        np.array([1, 2], np.longdouble),
        ArrayReference("runs/a/primary/img", 3, ">u2"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_comes_back(value: Any) -> None:
    text = encode(value)
    json.loads(text, parse_constant=pytest.fail)
    same(decode(text), value)
    # Inside something, where other code runs.
    same(decode(encode({"k": [value, None]})), {"k": [value, None]})


@pytest.mark.parametrize(
    ("value", "base"),
    [
        (np.float64(1.5), 1.5),
        (np.float64("nan"), float("nan")),
        (np.float32(1.1), float(np.float32(1.1))),
        (np.float16("inf"), float("inf")),
        (np.int8(-3), -3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool(True), True),
        (np.str_("text"), "text"),
        (np.bytes_(b"text"), b"text"),
        (np.complex64(1 + 2j), 1 + 2j),
        ((1, (2,)), [1, [2]]),
        (Point(1, 2), [1, 2]),
        (range(3), [0, 1, 2]),
        (Colour.RED, "red"),
        (Mode.FAST, "fast"),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (defaultdict(list, {"a": [1]}), {"a": [1]}),
        (UserDict({"a": 1}), {"a": 1}),
        (bytearray(b"x"), b"x"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_comes_back_as_its_base(value: Any, base: Any) -> None:
    decoded = decode(encode(value))
    same(decoded, base)
    assert type(decoded) is type(base)
    decoded = decode(encode([value, None]))[0]
    same(decoded, base)
    assert type(decoded) is type(base)


def test_extended_precision_scalars_keep_their_precision() -> None:
    third = np.longdouble(1) / 3
    assert decode(encode(third)) == third
    moment = np.datetime64("2026-11-20T08:30:00.000000001")
    assert decode(encode({"t": moment}))["t"] == moment


def test_key_order_is_kept() -> None:
    keys = ["z", "$a", "", "m", "é"]
    assert list(decode(encode(dict.fromkeys(keys)))) == keys


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ({"a": 1.5, "b": [1, "x", True]}, True),
        ({"a": np.float64(2), "b": np.int32(1)}, True),
        ({"a": float("nan")}, False),
        ({"a": np.float32("inf")}, False),
        ({"$a": 1}, False),
        ({"a": 2**64}, False),
        ({"a": np.zeros(3)}, False),
        ({"a": None}, False),
        ({1: 2}, False),
    ],
)
def test_the_fast_way_is_taken_only_where_it_is_exact(value: Any, plain: bool) -> None:
    text = encode_plain(value)
    assert (text is not None) is plain
    if text is not None:
        same(decode(text), json.loads(text))


def test_sqlite_reads_the_text() -> None:
    text = encode({"motor": 1.5, "x": float("nan"), "$y": 2**70, "z": "\ud800"})
    connection = sqlite3.connect(":memory:")
    try:
        query = "SELECT json_valid(?1), json_extract(?1, '$.motor')"
        assert connection.execute(query, (text,)).fetchone() == (1, 1.5)
    finally:
        connection.close()


def test_objects_without_a_form_are_kept_as_text_and_named() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    lost: list[str] = []
    value = {"a": object, "b": Broken(), "c": 1}
    decoded = decode(encode(value, lost))
    assert decoded["a"] == "<class 'object'>"
    assert "Broken" in decoded["b"]
    assert decoded["c"] == 1
    assert len(lost) == 2
    assert "Broken" in lost[1]


def test_what_contains_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(DocumentError, match="contains itself"):
        encode(value)


def test_deep_nesting_comes_back() -> None:
    value: Any = math.inf
    for _ in range(280):
        value = [value]
    decoded = decode(encode(value))
    for _ in range(280):
        (decoded,) = decoded
    assert decoded == math.inf


@pytest.mark.parametrize(
    "text",
    ["", "{", "nan", '{"a": {"$bytes": "é"}}', '{"$ndarray": {}}', '{"$float": "x"}'],
)
def test_damaged_text_is_named(text: str) -> None:
    with pytest.raises(DocumentError, match="damaged"):
        decode(text)


def test_no_code_runs_when_reading() -> None:
    import base64
    import io
    import pickle

    buffer = io.BytesIO()
    np.save(buffer, np.array([print], dtype=object), allow_pickle=True)
    assert pickle.loads
    hostile = base64.b64encode(buffer.getvalue()).decode()
    text = json.dumps({"$ndarray": {"dtype": "O", "shape": [1], "npy": hostile}})
    with pytest.raises(DocumentError, match="damaged"):
        decode(text)


def test_a_tag_that_nobody_knows_stays_as_it_is() -> None:
    assert decode('{"a": {"$later": 1}}') == {"a": {"$later": 1}}


def test_a_pydantic_model_is_the_mapping_of_its_fields() -> None:
    from pydantic import BaseModel

    class Point(BaseModel):
        x: float
        tags: list[str]

    lost: list[str] = []
    stored = decode(encode({"p": Point(x=1, tags=["a"]), "kind": Point}, lost))
    assert stored["p"] == {"x": 1.0, "tags": ["a"]}
    assert len(lost) == 1  # the class is no value
