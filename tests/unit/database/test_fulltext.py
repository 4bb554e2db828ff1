"""Finding runs by what is said of them."""

from __future__ import annotations

import datetime as dt
import enum
import pathlib
from typing import Any

import numpy as np
import pytest

from bluesky_beamtime import Beamtime
from bluesky_beamtime.database import Database, Run, Runs
from bluesky_beamtime.database.conditions import make_conditions


def search(runs: Runs, text: str, **more: Any) -> list[str]:
    conditions = make_conditions(text=text, **more)
    found = Runs(runs._database, runs._journal, conditions)
    uids = [run.uid for run in found]
    assert len(found) == len(uids)
    assert bool(found) is bool(uids)
    assert [run.uid for run in found[:1]] == uids[:1]
    return uids


def start(uid: str, **metadata: Any) -> tuple[str, dict[str, Any]]:
    return "start", {"uid": uid, "time": 1.0, "scan_id": 1, **metadata}


def stop(uid: str, reason: str) -> tuple[str, dict[str, Any]]:
    return "stop", {
        "uid": f"stop-{uid}",
        "run_start": uid,
        "time": 2.0,
        "exit_status": "fail",
        "reason": reason,
    }


TEXTS = [
    'say "hi"',
    "it's",
    "100%",
    "under_score",
    "back\\slash",
    "Größe Ümlaut",
    "ΑΒΓ Ελλάδα",
    "日本語のテキスト",
    "AND OR NOT NEAR(",
    "col:on*",
    "-minus ^caret",
    "a\nb\tc",
    "; DROP TABLE runs; --",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
    "e\u0301clair",
    "nul\0inside",
    "\ud800lone",
]


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_is_found_and_no_other(record, runs, text) -> None:
    record([start("a", purpose=f"before {text} after")])
    record([start("b", purpose="something else")])
    assert search(runs, text) == ["a"]
    assert search(runs, text[1:-1] or text) == ["a"]
    assert search(runs, f"{text}!") == []


@pytest.mark.parametrize(
    "text",
    [*TEXTS, "", "a", "ab", "x" * 5000, "\n\n\n", " a ", '"""', "a" * 40 + "ü"],
)
def test_a_key_is_found_by_any_value(tmp_path, text) -> None:
    """Values of keys are looked up among the texts first."""
    with Beamtime(tmp_path / "x.db") as beamtime:
        for uid, value in (("a", text), ("b", text + "!"), ("c", f"!{text}")):
            said = {"deep": {"x.y": [value]}, "map": {"value": value}}
            beamtime(*start(uid, purpose=value, **said))
        for found in (
            beamtime.search(purpose=text),
            beamtime.search(**{"map.value": text}),
            beamtime.search(purpose=text, text=text),
            beamtime.search(purpose=text, uid="a"),
        ):
            assert [run.uid for run in found] == ["a"]
        assert not beamtime.search(purpose=text, uid="b")
        assert not beamtime.search(purpose=text.swapcase() + "?")


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("Größe", "gRÖßE"),
        ("Größe", "GRÖ"),
        ("ελλάδα", "ΕΛΛΆΔΑ"),
        ("LaB6", "lab6"),
        ("x é y", "É"),
        ("x É y", "é"),
        ("Ab", "aB"),
    ],
)
def test_case_does_not_matter(record, runs, said, text) -> None:
    record([start("a", purpose=said), start("b", purpose="?")])
    assert search(runs, text) == ["a"]


@pytest.mark.parametrize(("text", "uids"), [("%", ["p"]), ("_", ["u"]), ("1%", ["p"])])
def test_what_is_short_is_no_pattern(record, runs, text, uids) -> None:
    record([start("p", purpose="1%")])
    record([start("u", purpose="1_")])
    assert search(runs, text) == uids


def test_no_text_is_no_condition(record, runs) -> None:
    record([start("a")])
    assert search(runs, "") == ["a"]
    with pytest.raises(TypeError, match="searched by text, not by 3"):
        make_conditions(text=3)  # type: ignore[arg-type]


class Color(enum.Enum):
    RED = "crimson"


@pytest.mark.parametrize(
    "value",
    [
        "crimson",
        ["a", ["crimson"]],
        {"deep": {"deeper": "crimson"}},
        {"crimson"},
        ("crimson",),
        Color.RED,
        pathlib.PurePosixPath("/data/crimson/x"),
        np.array(["crimson", "x"]),
        np.str_("crimson"),
    ],
    ids=str,
)
def test_words_are_found_wherever_they_are(record, runs, value) -> None:
    record([start("a", key=value), start("b", key="blue")])
    assert search(runs, "crimson") == ["a"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567, "1234567"),
        (12.3456789, "12.3456789"),
        (np.float64(12.3456789), "12.3456789"),
        (np.int16(12345), "12345"),
        ([1, 2, 98765], "98765"),
        (np.arange(98760, 98770), "98765"),
        (dt.date(2026, 11, 20), "2026-11-20"),
        (2**70, str(2**70)),
    ],
    ids=str,
)
def test_numbers_are_found(record, runs, value, text) -> None:
    record([start("a", key=value)])
    assert search(runs, text) == ["a"]


def test_keys_uids_times_and_flags_are_not_searched(record, runs) -> None:
    record([start("abcdef", purpose="x", flag=True, nothing=None)])
    for text in ("abcdef", "purpose", "1.0", "True", "true", "None"):
        assert search(runs, text) == [], text


def test_a_text_does_not_go_across_two_values(record, runs) -> None:
    record([start("a", one="alpha", two="beta")])
    assert search(runs, "alphabeta") == []
    assert search(runs, "alpha beta") == []


def test_ten_thousand_positions_do_not_hide_a_word(record, runs) -> None:
    positions = [float(number) for number in range(10_000)]
    record([start("a", args=positions, last="needle")])
    assert search(runs, "needle") == ["a"]
    with runs._database.reading() as connection:
        (size,) = connection.exec_driver_sql("SELECT length(text) FROM run_texts").one()
    assert size < 5000


def test_strange_start_documents_are_recorded_all_the_same(record, runs) -> None:
    deep: Any = "bottom"
    for _ in range(150):
        deep = [deep]
    strange = [deep, object(), b"bytes", complex(1, 2), float("nan"), 10**5000]
    with pytest.warns(UserWarning, match="no JSON form"):
        record([start("a", strange=strange, word="needle")])
    assert search(runs, "needle") == ["a"]


def test_what_comes_later_is_found_later(record, runs) -> None:
    run: Run = record([start("a", purpose="x")])
    record([start("b", purpose="x")])
    assert search(runs, "beam dump") == []
    record([stop("a", "Beam dump at 12:31")])
    assert search(runs, "beam dump") == ["a"]
    run.tag("excellent")
    run.note("shutter stuck", author="Zoë")
    for text in ("EXCELLENT", "shutter", "zoë", "beam dump"):
        assert search(runs, text) == ["a"]
    run.untag("excellent")
    assert search(runs, "excellent") == []
    assert search(runs, "shutter") == ["a"]


def test_a_run_that_is_gone_is_not_found(record, runs) -> None:
    record([start("a", purpose="needle")])
    record([start("b", purpose="needle")])
    with runs._database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM runs WHERE uid = 'a'")
    assert search(runs, "needle") == ["b"]
    with runs._database.writing() as connection:
        # Says whether the index and its texts agree.
        connection.exec_driver_sql(
            "INSERT INTO run_texts_fts(run_texts_fts) VALUES ('integrity-check')"
        )


def test_text_goes_with_every_other_condition(record, runs) -> None:
    for number in range(6):
        record(
            [
                start(
                    f"r{number}",
                    plan_name=["count", "scan"][number % 2],
                    purpose="needle" if number > 1 else "hay",
                    sample="LaB6" if number > 3 else "Si",
                )
            ]
        )
    assert search(runs, "needle", plan_name="scan") == ["r5", "r3"]
    assert search(runs, "needle", sample="LaB6") == ["r5", "r4"]
    assert search(runs, "need", metadata={"purpose": "needle"}) == [
        *("r5", "r4", "r3", "r2")
    ]
    assert search(runs, "ne", plan_name="count", sample="Si") == ["r2"]


def test_iterating_pages_gives_each_once(record, runs, monkeypatch) -> None:
    monkeypatch.setattr("bluesky_beamtime.database.search._PAGE", 3)
    uids = [f"r{number}" for number in range(10)]
    for uid in uids:
        record([start(uid, purpose="needle")])
    assert search(runs, "needle") == uids[::-1]
    assert [run.uid for run in runs] == uids[::-1]


def test_a_damaged_index_is_no_silent_answer(database: Database, record, runs) -> None:
    record([start("a", purpose="needle")])
    with database.writing() as connection:
        connection.exec_driver_sql("DROP TABLE run_texts_fts")
    with pytest.raises(Exception, match="run_texts_fts"):
        search(runs, "needle")
