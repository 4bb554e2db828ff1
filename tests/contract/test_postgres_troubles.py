"""A PostgreSQL sink that is shared, cancelled, or used in another event loop."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from bluesky_beamtime.database.replica import PostgresTestServer
from bluesky_beamtime.errors import SinkStateError, SinkWriteError
from bluesky_beamtime.sinks import DaqReading, PostgresConfig, PostgresSink
from bluesky_beamtime.sinks.postgres_types import as_server_text
from tests.unit.sinks.test_round_trips import batches, same_number, typed

Make = Callable[..., PostgresSink]
_schemas = itertools.count()


@pytest.fixture
def url(postgres_server: PostgresTestServer) -> str:
    pytest.importorskip("asyncpg", reason="the extra postgres is not installed")
    return postgres_server.url()


def new_schema(url: str) -> str:
    name = f"shared{next(_schemas)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")  # type: ignore[arg-type]
    return name


def config(url: str, schema: str, **options: Any) -> PostgresConfig:
    given_options = {"dsn": url, "schema": schema, "create_tables": True, **options}
    return PostgresConfig(**given_options)


def ask(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET timezone = 'UTC'")
        cursor = connection.execute(query)  # type: ignore[arg-type]
        return cursor.fetchall() if cursor.description else []


def reading(number: int, **values: Any) -> DaqReading:
    return DaqReading(device="d", t_mono_ns=number, values={"n": number, **values})


async def test_D_04_two_tasks_that_open_share_the_connections(url: str) -> None:
    """D-04, D-64: one pool, and none that nobody closes."""
    schema = new_schema(url)
    sink = PostgresSink(config(url, schema))
    await asyncio.gather(*(sink.open() for _ in range(5)))
    query = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE application_name = 'bluesky-beamtime'"
    )
    assert ask(url, query)[0][0] <= 4
    await sink.close()
    for _ in range(300):
        if ask(url, query) == [(0,)]:
            break
        await asyncio.sleep(0.05)
    assert ask(url, query) == [(0,)]


async def test_D_64_sinks_of_one_table_learn_each_others_columns(url: str) -> None:
    """D-43, D-53, D-64: new columns, and types that the other has widened."""
    schema = new_schema(url)
    a, b = (PostgresSink(config(url, schema)) for _ in range(2))
    async with a, b:
        await a.write_many([reading(1, a=1)])
        await b.write_many([reading(2, b=2)])
        await a.write_many([reading(3, a=3, b=3, c=3)])
        await b.write_many([reading(4, c=4)])
        # a knows whole numbers there; then it is a text.
        await b.write_many([reading(5, a="five")])
        try:
            await a.write_many([reading(6, a=6)])
        except SinkWriteError as error:
            await a.write_many(error.records)
        # And here they become floats, of as many bytes.
        await b.write_many([reading(7, b=0.5)])
        await a.write_many([reading(8, b=8)])
    rows = ask(url, f"SELECT n, a, b, c FROM {schema}.readings ORDER BY n")
    assert rows == [
        (1, "1", None, None),
        (2, None, 2, None),
        (3, "3", 3, 3),
        (4, None, None, 4),
        (5, "five", None, None),
        (6, "6", None, None),
        (7, None, 0.5, None),
        (8, None, 8.0, None),
    ]


@pytest.mark.parametrize("use_copy", [True, False])
async def test_D_64_sinks_that_change_a_table_at_the_same_time_wait_for_each_other(
    url: str, use_copy: bool
) -> None:
    """D-53, D-64: the table, a column and a type are made once, and no batch is lost.

    Two kinds of readings in each call: who has written and then changes the table waits
    for the other.
    """
    for _ in range(8):
        schema = new_schema(url)
        sinks = [PostgresSink(config(url, schema, use_copy=use_copy)) for _ in range(3)]
        await asyncio.gather(*(sink.open() for sink in sinks))
        calls: list[dict[str, Any]] = [
            {"a": 1},
            {"a": 1, "new": 1},
            {"a": 0.5, "new": 2**70},
            {"a": "text", "new": 0.5},
        ]
        try:
            for number, values in enumerate(calls):
                batch = [reading(number), reading(number, **values)]
                await asyncio.gather(*(sink.write_many(batch) for sink in sinks))
        finally:
            await asyncio.gather(*(sink.close() for sink in sinks))
        rows = ask(
            url, f"SELECT a, new FROM {schema}.readings ORDER BY n, a NULLS LAST"
        )
        wanted = [("1", None), ("1", 1), ("0.5", 2**70), ("text", Decimal("0.5"))]
        assert rows == [r for row in wanted for r in [row] * 3 + [(None, None)] * 3]


@pytest.mark.parametrize("use_copy", [True, False])
async def test_D_44_what_another_sink_has_widened_is_not_narrowed(
    url: str, use_copy: bool
) -> None:
    """D-44, D-64: a number with all its digits, a text that looks like a number."""
    schema = new_schema(url)
    a, b = (PostgresSink(config(url, schema, use_copy=use_copy)) for _ in range(2))
    async with a, b:
        await a.write_many([reading(1, x=1, y=1)])
        await b.write_many([reading(2, x=2, y=2)])
        await a.write_many([reading(3, x=2**70 + 1, y="007")])
        await b.write_many([reading(4, x=0.5, y=0.5)])
    found = ask(url, f"SELECT x, y FROM {schema}.readings ORDER BY n")
    assert found == [
        (1, "1"),
        (2, "2"),
        (2**70 + 1, "007"),
        (Decimal("0.5"), "0.5"),
    ]


async def test_D_64_what_a_server_isolates_by_default_does_not_hide_a_change(
    postgres_server: PostgresTestServer,
) -> None:
    """D-64: what the other sink has made is seen once its turn is over."""
    pytest.importorskip("asyncpg", reason="the extra postgres is not installed")
    name = "isolated"
    url = postgres_server.create_database(name)
    ask(url, f"ALTER DATABASE {name} SET default_transaction_isolation = serializable")
    for _ in range(8):
        schema = new_schema(url)
        a, b = (PostgresSink(config(url, schema)) for _ in range(2))
        async with a, b:
            for number, values in enumerate(({}, {"x": 1}, {"x": 0.5})):
                batch = [reading(number, **values)]
                await asyncio.gather(a.write_many(batch), b.write_many(batch))
        assert ask(url, f"SELECT count(*) FROM {schema}.readings") == [(6,)]


@pytest.mark.parametrize("use_copy", [True, False])
async def test_D_16_a_cancelled_write_is_whole_or_not_there(
    url: str, use_copy: bool
) -> None:
    """D-16, D-64: whenever it is cancelled; the sink goes on."""
    schema = new_schema(url)
    sink = PostgresSink(config(url, schema, use_copy=use_copy))
    async with sink:
        await sink.write_many([reading(-1, turn=None)])
        for turn in range(30):
            batch = [reading(n, turn=turn) for n in range(200)]
            task = asyncio.create_task(sink.write_many(batch))
            for _ in range(turn):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        await sink.write_many([reading(-2)])
    counts = ask(url, f"SELECT turn, count(*) FROM {schema}.readings GROUP BY turn")
    assert {count for turn, count in counts if turn is not None} <= {200}
    assert dict(counts)[None] == 2


async def test_D_59_an_open_that_is_cancelled_leaves_no_connection(url: str) -> None:
    """D-59: at any moment; the next open works."""
    schema = new_schema(url)
    for turns in range(0, 60, 3):
        sink = PostgresSink(config(url, schema))
        task = asyncio.create_task(sink.open())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert sink.is_open == (not task.cancelled())
        async with sink:
            await sink.write_many([reading(turns)])


def test_D_64_another_event_loop_is_told_so(url: str) -> None:
    """D-64, D-66: a kind error, and close and open make it good."""
    sink = PostgresSink(config(url, new_schema(url)))
    record = reading(1)

    async def again() -> None:
        async with sink:
            await sink.write_many([record])

    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(sink.open())
        with pytest.raises(SinkStateError, match=r"another event loop.*open") as caught:
            second.run(sink.write_many([record]))
        assert caught.value.records == [record]
        second.run(sink.close())
        assert not sink.is_open
        second.run(again())
        # Where they belong, the connections end.
        first.run(asyncio.sleep(0.1))
    schema = sink.config.schema
    assert ask(url, f"SELECT n FROM {schema}.readings") == [(1,)]


async def test_D_43_types_that_become_text_say_what_python_says(url: str) -> None:
    """D-44: what was there before is written as what comes after it."""
    schema = new_schema(url)
    moment = datetime(2026, 11, 21, 12, tzinfo=UTC)
    async with PostgresSink(config(url, schema)) as sink:
        await sink.write_many([reading(1, on=True, when=moment)])
        await sink.write_many([reading(2, on="x", when="x")])
        await sink.write_many([reading(3, on=False, when=moment)])
    rows = ask(url, f'SELECT "on", "when" FROM {schema}.readings ORDER BY n')
    assert [row[0] for row in rows] == ["True", "x", "False"]
    assert [row[1] for row in rows] == [moment.isoformat(), "x", moment.isoformat()]


@pytest.mark.parametrize("later", [-0.5, 2**63, True, "text", math.nan, 1e300])
async def test_D_44_a_type_that_changes_late_loses_nothing(
    url: str, later: Any
) -> None:
    """D-44, D-62: the driver itself would store -0.5 as 0 among whole numbers."""
    schema = new_schema(url)
    given_values = [1, 2, None, 3, later, 4, later]
    async with PostgresSink(config(url, schema)) as sink:
        for number, value in enumerate(given_values):
            await sink.write_many([reading(number, x=value)])
    found = [row[0] for row in ask(url, f"SELECT x FROM {schema}.readings ORDER BY n")]
    assert len(found) == len(given_values)
    for value, there in zip(given_values, found, strict=True):
        assert (there is None) if value is None else same(there, value), (value, there)


@pytest.mark.parametrize("use_copy", [True, False])
async def test_D_63_text_that_the_server_cannot_hold_is_mended(
    url: str, use_copy: bool
) -> None:
    """D-49, D-63: also where its column or a number beside it has to change."""
    schema = new_schema(url)
    async with PostgresSink(config(url, schema, use_copy=use_copy)) as sink:
        await sink.write_many([reading(1, text="a", x=1)])
        await sink.write_many([reading(2, text="b", x=1), reading(3, text="a\0b", x=1)])
        # As fast as before: only what was refused is looked at.
        assert not sink._calls._careful
        await sink.write_many([reading(4, text="c", x=1), reading(5, x="\udfff\0")])
        await sink.write_many([reading(6, text="\udc80", x=0.5)])
    assert ask(url, f"SELECT n, text, x FROM {schema}.readings ORDER BY n") == [
        (1, "a", "1"),
        (2, "b", "1"),
        (3, "a␀b", "1"),
        (4, "c", "1"),
        (5, None, "\\udfff␀"),
        (6, "\\udc80", "0.5"),
    ]


async def test_D_63_data_that_the_server_refuses_for_good_is_refused_whole(
    url: str,
) -> None:
    """D-49: nothing of the batch is there, and the error carries it."""
    schema = new_schema(url)
    ask(
        url, f"CREATE TABLE {schema}.readings (device text, label character varying(3))"
    )
    records = [
        DaqReading(device="a", values={"label": "fits"[:number]}) for number in (3, 4)
    ]
    given_config = config(url, schema, create_tables=False)
    async with PostgresSink(given_config, schema="drop") as sink:
        with pytest.raises(SinkWriteError, match="Nothing of this batch") as caught:
            await sink.write_many(records)
        assert caught.value.records == records
        await sink.write_many(records[:1])
    assert ask(url, f"SELECT label FROM {schema}.readings") == [("fit",)]


async def test_D_63_names_longer_than_the_server_takes_stay_apart(url: str) -> None:
    """D-46, D-63: 300 characters, or 63 that differ in case; also after reopening."""
    schema = new_schema(url)
    names = ["x" * 300 + "1", "x" * 300 + "2", "t" * 63, "T" * 63, "ü" * 100]
    values = {name: number for number, name in enumerate(names)}
    for _ in range(2):
        async with PostgresSink(config(url, schema)) as sink:
            await sink.write_many([DaqReading(device="d", values=values)])
    with psycopg.connect(url) as connection:
        cursor = connection.execute(f"SELECT * FROM {schema}.readings")  # type: ignore[arg-type]
        rows = cursor.fetchall()
    assert [row[8:13] for row in rows] == [(0, 1, 2, 3, 4)] * 2


def same(found: Any, value: Any) -> bool:
    if isinstance(found, Decimal):
        if isinstance(value, float) and not math.isfinite(value):
            return str(float(found)) == str(value)
        # The server may write a float with a digit more than Python needs.
        return (float(found) if type(value) is float else found) == value
    if isinstance(found, str) and isinstance(value, (int, float)):
        number = {"NaN": "nan", "Infinity": "inf", "-Infinity": "-inf"}.get(
            found, found
        )
        if number in ("True", "False"):
            return number == str(value)
        return number == str(value) or same_number(float(number), value)
    if isinstance(value, (int, float)):
        return same_number(found, value)
    if isinstance(found, str) and isinstance(value, datetime):
        return datetime.fromisoformat(found) == value
    return type(found) is type(value) and found == value


@given(given_batches=batches())
@settings(
    max_examples=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
def test_D_09_every_value_comes_back_from_the_server(
    url: str, given_batches: list[list[DaqReading]]
) -> None:
    """D-44, D-61, D-63: names, values and types, read by another driver."""
    schema = new_schema(url)
    readings = [reading for batch in given_batches for reading in batch]
    if not readings:
        return

    async def main() -> None:
        async with PostgresSink(config(url, schema)) as sink:
            for batch in given_batches:
                await sink.write_many(batch)

    asyncio.run(main())
    with psycopg.connect(url) as connection:
        connection.execute("SET timezone = 'UTC'")
        cursor = connection.execute(f"SELECT * FROM {schema}.readings")  # type: ignore[arg-type]
        names = [column.name for column in cursor.description or ()]
        found = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    wanted = typed(readings)
    assert names == list(wanted[0])
    for row, other in zip(found, wanted, strict=True):
        for name in names:
            value = other[name]
            if value is None:
                assert row[name] is None
            else:
                assert same(row[name], as_server_text(value)), (name, row[name], value)
