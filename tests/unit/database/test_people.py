"""People, proposals and their runs."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from bluesky_beamtime import Beamtime, BeamtimeWarning, Person
from bluesky_beamtime.database.people import check_orcid, people_of, proposal_of
from bluesky_beamtime.errors import DocumentError, ReadOnlyError

ADA = "0000-0002-1825-0097"
EVE = "0000-0002-1694-233X"


@pytest.fixture
def beamtime(tmp_path):
    with Beamtime(tmp_path / "x.db") as beamtime:
        yield beamtime


def record(beamtime: Beamtime, uid: str, **metadata: Any):
    beamtime("start", {"uid": uid, "time": 1.0, **metadata})
    return beamtime[uid]


def names(people: list[Person]) -> list[tuple[str, str | None]]:
    return [(person.name, person.role) for person in people]


@pytest.mark.parametrize(
    "text",
    [
        ADA,
        ADA.replace("-", ""),
        f"https://orcid.org/{ADA}",
        f"http://orcid.org/{ADA}/",
        f" orcid.org/{ADA} ",
    ],
)
def test_an_orcid_is_written_in_one_way(text) -> None:
    assert check_orcid(text) == ADA


def test_an_orcid_may_end_with_x() -> None:
    assert check_orcid(EVE.lower()) == EVE


@pytest.mark.parametrize("digit", "012345689X")
def test_a_wrong_check_digit_is_named(digit) -> None:
    with pytest.raises(DocumentError, match="would be 7, not"):
        check_orcid(ADA[:-1] + digit)


def test_two_digits_that_changed_places_are_noticed() -> None:
    digits = ADA.replace("-", "")
    for place in range(15):
        swapped = list(digits)
        swapped[place], swapped[place + 1] = swapped[place + 1], swapped[place]
        if "".join(swapped) != digits:
            with pytest.raises(DocumentError):
                check_orcid("".join(swapped))


@pytest.mark.parametrize("text", ["", "abc", "0000-0002-1825-009", f"{ADA}1", "X" * 16])
def test_what_is_no_orcid_says_what_one_looks_like(text) -> None:
    with pytest.raises(DocumentError, match="is no ORCID iD; one looks like 0000-"):
        check_orcid(text)


@pytest.mark.parametrize("name", ["", "  ", None, 3])
def test_a_person_needs_a_name(name) -> None:
    with pytest.raises(DocumentError, match="a person needs a name"):
        Person(name)
    with pytest.raises(DocumentError):
        Person.of(3)  # type: ignore[arg-type]


def test_a_person_can_be_said_in_several_ways() -> None:
    assert Person.of(f"Ada Lovelace <{ADA}>") == Person("Ada Lovelace", orcid=ADA)
    assert Person.of("Ada <a@b.uk>") == Person("Ada", email="a@b.uk")
    said = {"first_name": "Ada", "last_name": "L", "ORCID": ADA, "badge": 12}
    assert Person.of(said) == Person("Ada L", orcid=ADA)
    ada = Person("Ada")
    assert Person.of(ada) is ada


def test_a_start_document_names_people() -> None:
    people, wrong = people_of(
        {"operator": "Eve", "users": ["Ada", {"name": "Bob", "role": "PI"}]}
    )
    assert names(people) == [("Eve", "operator"), ("Ada", "user"), ("Bob", "PI")]
    assert wrong == []
    people, wrong = people_of({"user": "Ada", "users": {"name": "Bob"}, "operator": ""})
    assert names(people) == [("Bob", "user"), ("Ada", "user")]
    people, wrong = people_of({"users": [3, f"Ada <{ADA[:-1]}1>", {"orcid": ADA}]})
    assert names(people) == [("Ada", "user")]
    assert people[0].orcid is None
    assert len(wrong) == 3


@pytest.mark.parametrize(
    ("value", "proposal"),
    [
        ("cm40123-2", "cm40123-2"),
        (312345, "312345"),
        ({"proposal_id": 312345, "title": "Rings"}, "312345"),
        ({"title": "Rings"}, "Rings"),
        ({}, None),
        ("", None),
        (None, None),
        (1.5, None),
        (["a"], None),
    ],
)
def test_a_proposal_is_a_number_or_a_name(value, proposal) -> None:
    assert proposal_of(value) == proposal


def test_proposal_and_users_hold_for_the_runs_that_start(beamtime) -> None:
    before = record(beamtime, "before")
    beamtime.proposal = "cm1"
    beamtime.users = [Person("Ada", orcid=ADA), "Bob"]
    during = record(beamtime, "during")
    beamtime.proposal = 2
    beamtime.users = "Bob"
    after = record(beamtime, "after")
    beamtime.users = None
    beamtime.proposal = None
    last = record(beamtime, "last")
    runs = [before, during, after, last]
    assert [run.proposal for run in runs] == [None, "cm1", "2", None]
    assert [names(run.people) for run in runs] == [
        [],
        [("Ada", "user"), ("Bob", "user")],
        [("Bob", "user")],
        [],
    ]
    assert beamtime.proposal is None
    assert beamtime.users == []
    assert [run.uid for run in beamtime.search(proposal="cm1")] == ["during"]
    assert [run.uid for run in beamtime.search(proposal=2)] == ["after"]
    assert [run.uid for run in beamtime.search(user="Bob")] == ["after", "during"]
    for ada in ("Ada", ADA, f"https://orcid.org/{ADA}", Person("X", orcid=ADA)):
        assert [run.uid for run in beamtime.search(user=ada)] == ["during"]
    assert not beamtime.search(user="Ad")
    assert [run.uid for run in beamtime.search(text="cm1")] == ["during"]
    assert [run.uid for run in beamtime.search(text=ADA)] == ["during"]


def test_the_start_document_has_the_last_word(beamtime) -> None:
    beamtime.proposal = "cm1"
    beamtime.users = ["Ada"]
    run = record(beamtime, "a", proposal="cm2", users=["Bob"], operator="Eve")
    assert run.proposal == "cm2"
    assert names(run.people) == [("Eve", "operator"), ("Bob", "user")]
    run = record(beamtime, "b", operator="Eve")
    assert run.proposal == "cm1"
    assert names(run.people) == [("Ada", "user"), ("Eve", "operator")]


def test_they_are_kept_and_hold_in_other_processes(beamtime) -> None:
    beamtime.proposal = "cm1"
    beamtime.users = [{"name": "Ada", "role": "PI"}]
    with Beamtime(beamtime.path) as other:
        assert other.proposal == "cm1"
        assert names(record(other, "a").people) == [("Ada", "PI")]
    with Beamtime(beamtime.path, mode="r") as reader:
        assert reader.proposal == "cm1"
        assert names(reader.users) == [("Ada", "PI")]
        with pytest.raises(ReadOnlyError, match="change the proposal"):
            reader.proposal = "cm2"
        with pytest.raises(ReadOnlyError, match="change the users"):
            reader.users = []


def test_the_same_person_is_one_row(beamtime) -> None:
    beamtime.users = ["Ada"]
    beamtime.users = [Person("Ada", orcid=ADA)]
    beamtime.users = [Person("Ada King", orcid=ADA, email="ada@king.uk")]
    beamtime.users = [Person("Ada King", affiliation="London")]
    (ada,) = beamtime.people
    assert ada == Person("Ada King", "ada@king.uk", ADA, "London", id=1)
    beamtime.users = [Person("Ada King", orcid=EVE)]
    assert [person.orcid for person in beamtime.people] == [ADA, EVE]


def test_a_wrong_orcid_in_a_start_document_does_not_cost_the_run(beamtime) -> None:
    with pytest.warns(BeamtimeWarning, match="run a: the ORCID iD .* is mistyped"):
        run = record(beamtime, "a", users=[{"name": "Ada", "orcid": ADA[:-1] + "1"}])
    assert names(run.people) == [("Ada", "user")]
    assert run.complete or run.exit_status is None


@pytest.mark.parametrize(
    "value",
    [
        *(
            3,
            1.5,
            True,
            float("nan"),
            b"x",
            object(),
            [10**5000],
            [[]],
            [None, 3],
            {1: 2},
        ),
        {"name": None},
        {"name": "\ud800"},
        "a\0b",
        [{"name": "Ada", "email": 10**5000}],
        {"name": "Ada", "email": "\ud800", "affiliation": ["x"], "id": 7},
        {"name": {"first": "Ada"}, "orcid": ["x"]},
    ],
)
def test_nonsense_does_not_cost_the_run(beamtime, value) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BeamtimeWarning)
        run = record(beamtime, "a", users=value, operator=value, proposal=value)
    assert run.uid == "a"
    assert not run.in_journal
    assert isinstance(run.people, list)


@pytest.mark.parametrize("value", [1.5, [], {}, ""])
def test_what_is_no_proposal_is_refused(beamtime, value) -> None:
    with pytest.raises(DocumentError, match="a proposal is a number or a name"):
        beamtime.proposal = value
    with pytest.raises(DocumentError):
        beamtime.users = [value or None]
