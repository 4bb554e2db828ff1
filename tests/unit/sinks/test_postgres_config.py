"""Where a PostgreSQL sink writes to, D-55 to D-58."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import pytest

from bluesky_beamtime.errors import SinkDependencyError
from bluesky_beamtime.sinks import PostgresConfig, PostgresSink

SECRET = "s3cr%20et"


def test_D_55_defaults_and_frozen() -> None:
    """D-55: the password is in no repr."""
    config = PostgresConfig(host="db", password=SECRET)
    assert (config.port, config.schema) == (5432, "public")
    assert (config.table_readings, config.table_blocks) == ("readings", "blocks")
    assert (config.pool_min_size, config.pool_max_size) == (1, 4)
    assert (config.statement_timeout_ms, config.command_timeout_s) == (30_000, 10.0)
    assert (config.create_tables, config.use_copy) == (False, True)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.port = 1  # type: ignore[misc]
    assert SECRET not in repr(config)
    assert SECRET not in repr(PostgresConfig(dsn=f"postgresql://u:{SECRET}@db/x"))


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"dsn": "postgresql://db/x", "host": "db"},
        {"dsn": "postgresql://db/x", "user": "me"},
        {"dsn": "postgresql://db/x", "password": "me"},
        {"dsn": "postgresql://db/x", "database": "me"},
        {"dsn": ""},
        {"dsn": "host=db nonsense"},
        {"host": "db", "schema": "a;b"},
        {"host": "db", "table_readings": "1"},
        {"host": "db", "table_blocks": "readings"},
        {"host": "db", "pool_min_size": 0},
        {"host": "db", "pool_min_size": 5},
        {"host": "db", "statement_timeout_ms": -1},
        {"host": "db", "command_timeout_s": 0},
    ],
)
def test_D_56_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    """D-56: when it is given, not when it is used."""
    with pytest.raises(ValueError):
        PostgresConfig(**wrong)


@pytest.mark.parametrize(
    ("given", "target"),
    [
        ({"host": "db", "database": "x"}, "postgres://db:5432/x.public"),
        (
            {"dsn": f"postgresql://me:{SECRET}@db:5433/x%20y?sslmode=require"},
            "postgres://db:5433/x y.public",
        ),
        (
            {"dsn": f"postgres://me:{SECRET}@a:1,b:2,c/x"},
            "postgres://a:1,b:2,c:5432/x.public",
        ),
        ({"dsn": f"postgresql://me:p@{SECRET}@db/x"}, "postgres://db:5432/x.public"),
        (
            {"dsn": f"postgresql:///x?host=db&password={SECRET}"},
            "postgres://db:5432/x.public",
        ),
        (
            {"dsn": f"host=db port=7 dbname=x user=me password={SECRET}"},
            "postgres://db:7/x.public",
        ),
        (
            {"dsn": f"password='a \\' {SECRET}' host = db dbname='x'"},
            "postgres://db:5432/x.public",
        ),
        ({"dsn": f"postgresql://me:{SECRET}@[::1]:5/x"}, "postgres://[::1]:5/x.public"),
    ],
)
def test_D_57_the_target_has_no_password(given: dict[str, Any], target: str) -> None:
    """D-57: whichever form it came in; several servers, escapes, key=value."""
    config = PostgresConfig(**given)
    assert config.target() == target
    assert SECRET not in f"{config.target()} {config!r}"
    if "dsn" in given:
        assert any(SECRET in s or "s3cr et" in s for s in config.secrets())


def test_D_57_pairs_reach_the_driver_under_its_names() -> None:
    """D-57: the driver itself takes URLs alone."""
    config = PostgresConfig(dsn="host=db port=7 dbname='a b' user=me password=p\\'q")
    assert config.arguments() == {
        "host": "db",
        "port": 7,
        "database": "a b",
        "user": "me",
        "password": "p'q",
    }
    with pytest.raises(ValueError, match="keepalives") as caught:
        PostgresConfig(dsn=f"host=db keepalives=1 password={SECRET}").arguments()
    assert SECRET not in str(caught.value)
    with pytest.raises(ValueError) as caught:
        PostgresConfig(dsn=f"password={SECRET} 'x")
    assert SECRET not in str(caught.value)


async def test_D_58_without_asyncpg_open_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """D-58: making the sink needs nothing."""
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    sink = PostgresSink(PostgresConfig(host="db"))
    with pytest.raises(SinkDependencyError, match=r"bluesky-beamtime\[postgres\]"):
        await sink.open()
    assert not sink.is_open
