"""What the PostgreSQL sink alone has, D-59 to D-67, on a server."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import psycopg
import pytest

from bluesky_beamtime.database.replica import PostgresTestServer
from bluesky_beamtime.errors import SinkSchemaError, SinkStateError, SinkWriteError
from bluesky_beamtime.sinks import (
    DaqBlock,
    DaqReading,
    PostgresConfig,
    PostgresSink,
    block_to_summary,
)

T0 = datetime(2026, 11, 21, 12, tzinfo=UTC)
_schemas = itertools.count()
Ask = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def schema(postgres_server: PostgresTestServer) -> str:
    name = f"own{next(_schemas)}"
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")  # type: ignore[arg-type]
    return name


@pytest.fixture
def ask(postgres_server: PostgresTestServer, schema: str) -> Ask:
    def ask(query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
            connection.execute(f"SET search_path = {schema}")  # type: ignore[arg-type]
            cursor = connection.execute(query)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    return ask


@pytest.fixture
def make(
    postgres_server: PostgresTestServer, schema: str
) -> Callable[..., PostgresSink]:
    def make(
        *, policy: Any = "evolve", samples: bool = False, **options: Any
    ) -> PostgresSink:
        given = {"dsn": postgres_server.url(), "schema": schema, "create_tables": True}
        config = PostgresConfig(**{**given, **options})
        return PostgresSink(config, schema=policy, samples=samples)

    return make


def reading(number: int, **values: Any) -> DaqReading:
    return DaqReading(
        device="d", values={"n": number, **values}, t_mono_ns=number, t_utc=T0
    )


def block(number: int = 0) -> DaqBlock:
    return DaqBlock(
        device="d",
        channels=("a,b", "c"),
        data=np.arange(6).reshape(2, 3),
        block_index=number,
        t_mono_ns=1,
        t_utc=T0,
        block_period_ns=1000,
    )


async def test_D_59_a_server_that_is_away_is_named_without_the_password() -> None:
    """D-59: neither in the text nor behind it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    config = PostgresConfig(dsn=f"postgresql://u:s3cret@127.0.0.1:{port}/x")
    with pytest.raises(SinkWriteError, match=f"127.0.0.1:{port}/x") as caught:
        await PostgresSink(config).open()
    error: BaseException | None = caught.value
    assert caught.value.context.operation == "PostgresSink.open"
    while error is not None:
        assert "s3cret" not in repr(error)
        error = error.__cause__


async def test_D_59_a_server_that_says_nothing_is_given_up() -> None:
    """D-59, D-66: nobody waits for ever."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        config = PostgresConfig(
            host="127.0.0.1",
            port=mute.getsockname()[1],
            user="u",
            password="s3cret",
            connect_timeout_s=0.2,
        )
        with pytest.raises(SinkWriteError, match="Timeout"):
            await PostgresSink(config).open()


async def test_D_59_the_server_knows_who_is_there(make: Any, ask: Ask) -> None:
    """D-59: by the name of the application; statements have their limit."""
    async with make() as sink:
        await sink.write_many([reading(1)])
        found = ask(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE application_name = 'bluesky-beamtime'"
        )
        assert found[0][0] >= 1
        async with sink._pool.acquire() as connection:
            assert await connection.fetchval("SHOW statement_timeout") == "30s"


async def test_D_60_tables_that_are_there_decide(make: Any, ask: Ask) -> None:
    """D-60: only those that are written to need be there; their types are kept."""
    with pytest.raises(SinkSchemaError, match="none of the tables"):
        await make(create_tables=False).open()
    ask(
        "CREATE TABLE readings (n double precision, t_utc timestamptz, device text,"
        " own integer DEFAULT 7, t_mono_ns numeric)"
    )
    sink = make(create_tables=False, policy="drop")
    async with sink:
        await sink.write_many([reading(1), reading(2)])
        with pytest.raises(SinkSchemaError, match="no table 'blocks'") as caught:
            await sink.write(block())
        assert len(caught.value.records) == 1
        with pytest.raises(SinkSchemaError, match=r"'n' .* is double precision"):
            await sink.write_many([reading(2**60 + 1)])
    found = ask("SELECT n, t_utc, device, t_mono_ns FROM readings")
    assert found == [(1.0, T0, "d", 1), (2.0, T0, "d", 2)]
    async with make(create_tables=False) as sink:
        with pytest.raises(SinkSchemaError, match="'task'"):
            await sink.write_many([reading(3)])


async def test_D_61_times_are_timestamps(make: Any, ask: Ask) -> None:
    """D-61: and numbers have the types of numbers."""
    async with make() as sink:
        await sink.write_many(
            [reading(1, f=0.5, b=True, s="x", i=2**62, none=None, when=T0)]
        )
    kinds = dict(
        ask(
            "SELECT column_name, data_type FROM information_schema.columns "
            "WHERE table_name = 'readings' AND table_schema = current_schema()"
        )
    )
    assert kinds["t_utc"] == kinds["received_at"] == "timestamp with time zone"
    assert kinds["when"] == "timestamp with time zone"
    assert (kinds["t_mono_ns"], kinds["i"]) == ("bigint", "bigint")
    assert (kinds["f"], kinds["latency_s"]) == ("double precision",) * 2
    assert (kinds["b"], kinds["s"]) == ("boolean", "text")
    assert ask("SELECT t_utc FROM readings") == [(T0,)]


@pytest.mark.parametrize("use_copy", [True, False])
async def test_D_62_copy_and_insert_store_the_same(
    make: Any, ask: Ask, use_copy: bool
) -> None:
    """D-62: types that change, NaN, infinities, huge numbers; exact in both."""
    values = [None, True, 3, 2.5, 2**53 + 1, 2**70, math.nan, math.inf, "text"]
    async with make(use_copy=use_copy) as sink:
        for number, value in enumerate(values):
            await sink.write_many([reading(number, x=value)])
        await sink.write_many([reading(n, y=n / 7) for n in range(100, 200)])
    found = [x for (x,) in ask("SELECT x FROM readings WHERE n < 100 ORDER BY n")]
    assert found[:4] == [None, "1", "3", "2.5"]
    assert found[4:6] == [str(2**53 + 1), str(2**70)]
    assert [text.lower() for text in found[6:]] == ["nan", "infinity", "text"]
    y = ask("SELECT y FROM readings WHERE n >= 100 ORDER BY n")
    assert y == [(n / 7,) for n in range(100, 200)]


async def test_D_62_no_number_is_rounded_on_its_way(make: Any, ask: Ask) -> None:
    """D-62: the driver would take whole numbers for floats, however large."""
    async with make() as sink:
        for values in ([0.5, 1.5], [2.5, None], [7, True], [2**53 + 1]):
            await sink.write_many([reading(0, x=value) for value in values])
        await sink.write_many([reading(1, x="text", y=1), reading(2, x=None, y=2.5)])
    found = [x for (x,) in ask("SELECT x FROM readings WHERE n < 2")]
    assert found == ["0.5", "1.5", "2.5", None, "7", "1", str(2**53 + 1), "text"]
    assert ask("SELECT y FROM readings WHERE n > 0") == [(1,), (2.5,)]


async def test_D_62_where_copy_is_refused_insert_takes_its_place(
    make: Any, ask: Ask, postgres_server: PostgresTestServer, schema: str
) -> None:
    """D-62: a table with row security takes no COPY from an ordinary role."""
    ask("CREATE TABLE readings (device text, n bigint)")
    ask("ALTER TABLE readings ENABLE ROW LEVEL SECURITY")
    ask("CREATE POLICY all_of_it ON readings USING (true) WITH CHECK (true)")
    role = f"role_{schema}"
    ask(f"CREATE ROLE {role} LOGIN PASSWORD 's3cret'")
    ask(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
    ask(f"GRANT INSERT, SELECT ON readings TO {role}")
    sink = make(
        dsn=postgres_server.url().replace("beamline:secret", f"{role}:s3cret"),
        create_tables=False,
        policy="drop",
    )
    async with sink:
        await sink.write_many([reading(1), reading(2)])
        await sink.write_many([reading(3)])
    assert ask("SELECT n FROM readings ORDER BY n") == [(1,), (2,), (3,)]


async def test_a_table_that_others_made_is_understood(
    make: Any, ask: Ask, postgres_server: PostgresTestServer, schema: str
) -> None:
    """Domains, lengths, partitions, dropped columns, and those of other roles alone."""
    ask("CREATE DOMAIN volts AS double precision CHECK (VALUE < 100)")
    ask("CREATE DOMAIN label AS character varying(20)")
    ask(
        "CREATE TABLE readings (device label, n smallint, gone text, x volts, "
        "y numeric(10, 3), hidden text, many integer[]) PARTITION BY RANGE (n)"
    )
    ask("CREATE TABLE part PARTITION OF readings FOR VALUES FROM (0) TO (100)")
    ask("ALTER TABLE readings DROP COLUMN gone")
    role = f"role_{schema}"
    ask(f"CREATE ROLE {role} LOGIN PASSWORD 's3cret'")
    ask(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
    ask(f"GRANT SELECT (n), INSERT (device, n, x, y) ON readings TO {role}")
    sink = make(
        dsn=postgres_server.url().replace("beamline:secret", f"{role}:s3cret"),
        create_tables=False,
        policy="drop",
    )
    async with sink:
        assert sink.columns == ("device", "n", "x", "y")
        await sink.write_many([reading(1, x=2, y=0.25, hidden="h")])
        with pytest.raises(SinkSchemaError, match=r"'n' .* is smallint"):
            await sink.write_many([reading(2**15)])
    assert ask("SELECT * FROM readings") == [
        ("d", 1, 2.0, Decimal("0.250"), None, None)
    ]
    told = ask(
        "SELECT column_name, data_type FROM information_schema.columns "
        f"WHERE table_schema = '{schema}' AND table_name = 'readings'"
    )
    async with make(create_tables=False) as sink:
        types = sink._calls.tables["readings"].types
    assert {**types, "many": "ARRAY"} == dict(told)


@pytest.mark.parametrize("use_copy", [True, False])
async def test_D_63_names_and_values_are_never_sql(
    make: Any, ask: Ask, use_copy: bool
) -> None:
    """D-63: whatever is in them; names that are too long stay apart."""
    text = "'); DROP TABLE readings; --"
    names = ['a"; DROP TABLE readings; --', "ü" * 40 + "1", "ü" * 40 + "2"]
    async with make(use_copy=use_copy) as sink:
        for _ in range(2):
            await sink.write_many(
                [
                    DaqReading(
                        device=text,
                        values={name: n for n, name in enumerate(names)},
                        t_utc=T0,
                    )
                ]
            )
    columns = list(sink.columns or ())
    assert all(len(name.encode()) <= 63 for name in columns)
    listed = ", ".join('"' + name.replace('"', '""') + '"' for name in columns[8:11])
    assert ask(f"SELECT device, {listed} FROM readings") == 2 * [(text, 0, 1, 2)]


async def test_D_64_concurrent_writes_are_stored_in_their_order(
    make: Any, ask: Ask
) -> None:
    """D-64: one batch after the other, however many tasks."""
    async with make() as sink:
        await asyncio.gather(*(sink.write_many([reading(n)]) for n in range(40)))
    assert ask("SELECT n FROM readings ORDER BY ctid") == [(n,) for n in range(40)]


async def test_D_64_a_batch_is_stored_whole_or_not_at_all(make: Any, ask: Ask) -> None:
    """D-49, D-64: with the columns it added; the sink goes on."""
    async with make() as sink:
        await sink.write_many([reading(1)])
        ask("ALTER TABLE readings ADD CHECK (n <> 3)")
        with pytest.raises(SinkWriteError, match=r"PostgresSink\.write_many") as caught:
            await sink.write_many([reading(2, new="a"), reading(3, new="b")])
        assert [r.values["n"] for r in caught.value.records] == [2, 3]
        await sink.write_many([reading(4, new="b")])
    assert ask("SELECT n, new FROM readings ORDER BY n") == [(1, None), (4, "b")]


async def test_D_64_a_connection_that_is_cut_is_made_anew(make: Any, ask: Ask) -> None:
    """D-64: the batch comes back with the error, and can be written again."""
    async with make(pool_max_size=1) as sink:
        await sink.write_many([reading(1)])
        ask(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE application_name = 'bluesky-beamtime'"
        )
        for _ in range(10):
            try:
                await sink.write_many([reading(2)])
            except SinkWriteError as error:
                assert [r.values["n"] for r in error.records] == [2]
            else:
                break
    assert ask("SELECT n FROM readings") == [(1,), (2,)]


async def test_D_65_use_before_open_is_refused(make: Any) -> None:
    """D-65: as in every sink."""
    sink = make()
    with pytest.raises(SinkStateError, match="write called before open"):
        await sink.write(block())


async def test_D_66_close_twice_and_log(
    make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """D-66, D-83: where to and how many, in fields; no password anywhere."""
    caplog.set_level(logging.DEBUG)
    async with make() as sink:
        await sink.write_many([reading(1), reading(2)])
    await sink.close()
    closes = [r for r in caplog.records if r.message == "sinks.postgres.close"]
    assert [r.__dict__["rows_written"] for r in closes] == [2]
    assert closes[0].__dict__["target"] == sink.config.target()
    assert not any("secret" in repr(record.__dict__) for record in caplog.records)


async def test_D_67_a_block_is_one_row_about_it(make: Any, ask: Ask) -> None:
    """D-67: the columns of the SQLite sink; samples where they are asked for."""
    async with make() as sink:
        await sink.write(block())
    wanted = block_to_summary(block())
    names = ask(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = "
        "current_schema() AND table_name = 'blocks' ORDER BY ordinal_position"
    )
    assert [name for (name,) in names] == list(wanted)
    found = ask("SELECT channels, samples_per_channel, t_utc FROM blocks")
    assert found == [(wanted["channels"], 3, T0)]
    async with make(samples=True) as sink:
        await sink.write(block(1))
    found = ask("SELECT channel, value FROM samples WHERE block_index = 1")
    assert found == [("a,b", 0), ("a,b", 1), ("a,b", 2), ("c", 3), ("c", 4), ("c", 5)]
