"""No password is ever shown: by a repr, a log line, an error or what is behind it."""

from __future__ import annotations

import logging
import pickle
import socket
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bluesky_beamtime.errors import SinkWriteError
from bluesky_beamtime.sinks import PostgresConfig, PostgresSink

SECRET = "s3cret"
ENCODED = "s3%63ret"  # the same, percent-encoded

# HOST is the address of a server that does not answer.
UNDERSTOOD = [
    f"postgresql://me:{SECRET}@HOST/x",
    f"postgres://me:{SECRET}@HOST",
    f"postgresql://me:{ENCODED}@HOST/x",
    f"postgresql://me:a@b:{SECRET}@HOST/x",
    f"postgresql://me:{SECRET}[@HOST/x",
    f"postgresql://me:{SECRET}%2F%3F%23@HOST/x?application_name=a%20b",
    f"postgresql://HOST/x?user=me@there&password={SECRET}",
    f"postgresql://HOST/x?user=me&password={ENCODED}",
    f"postgresql://me:{SECRET}@HOST,HOST/x?target_session_attrs=any",
    f"postgresql://me:{SECRET}@/x?host=127.0.0.1&port=PORT",
    f"host=127.0.0.1 port=PORT user=me password={SECRET}",
    f"host=127.0.0.1 port=PORT user=me password='{SECRET} \\' more'",
    f"hostaddr=127.0.0.1 port = PORT password = '{SECRET}' dbname='x y'",
    f"host=127.0.0.1,127.0.0.1 port=PORT password={SECRET} sslmode=disable",
]
REFUSED = [
    f"postgresql://me:{SECRET}/more@db/x",
    f"postgresql://me:{SECRET}?more@db/x",
    f"postgresql://me:{SECRET}#more@db/x",
    f"postgresql://me:12/{SECRET}@db/x",
    f"postgresql://me:12?{SECRET}@db/x",
    f"postgresql://me:12?{SECRET}%=1@db/x",
    f"postgresql//me:{SECRET}@db/x",
    f"mysql://me:{SECRET}@db/x",
    f"postgresql://me:more@db:{SECRET}/x",
    f"host=db password=my {SECRET}",
    f"host=db password=my {SECRET}=1",
    f"host=db password='{SECRET}",
    f"host=db password={SECRET} port=no",
    f"host=db port={SECRET}",
    f"host=db password={SECRET} service=mine",
]


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and whatever stands behind it, shown by default or not."""
    waiting, seen = [error], []
    while waiting:
        each = waiting.pop()
        if any(each is other for other in seen):
            continue
        seen.append(each)
        yield each
        waiting += [e for e in (each.__cause__, each.__context__) if e is not None]


def said(error: BaseException) -> str:
    """Return all that a program can show of an error, variables of frames included."""
    texts: list[str] = []
    for each in chain(error):
        texts += [str(each), repr(each), repr(each.args), repr(vars(each))]
        summary = traceback.TracebackException.from_exception(each, capture_locals=True)
        # The variables of whoever gave the password have it, of course, and the
        # parameters of the configuration.
        texts += [
            repr(frame.locals)
            for frame in summary.stack
            if Path(frame.filename) != Path(__file__) and frame.filename != "<string>"
        ]
    return "\n".join(texts)


@pytest.mark.parametrize("dsn", UNDERSTOOD)
async def test_D_57_D_59_a_server_that_is_away_gives_no_password_away(
    dsn: str, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """D-57, D-59: in every form that PostgreSQL itself understands."""
    caplog.set_level(logging.DEBUG)
    address = f"127.0.0.1:{port}"
    config = PostgresConfig(dsn=dsn.replace("HOST", address).replace("PORT", str(port)))
    sink = PostgresSink(config)
    shown = f"{config!r} {config} {config.target()} {sink!r} {sink.target}"
    assert address in config.target()
    with pytest.raises(SinkWriteError) as caught:
        await sink.open()
    assert config.target() in str(caught.value)
    logged = [f"{r.getMessage()} {r.__dict__}" for r in caplog.records]
    for text in (shown, said(caught.value), *logged):
        assert SECRET not in text
        assert ENCODED not in text
    assert SECRET in "".join(pickle.loads(pickle.dumps(config)).secrets())


@pytest.mark.parametrize("dsn", REFUSED)
def test_D_56_D_57_what_cannot_be_told_from_a_password_is_refused(dsn: str) -> None:
    """D-56, D-57: when it is given; the error says how to write it, not what it is."""
    with pytest.raises(ValueError, match="PostgresConfig") as caught:
        PostgresConfig(dsn=dsn)
    for piece in (SECRET, "more", "12"):
        assert piece not in said(caught.value)
    assert len(list(chain(caught.value))) == 1


async def test_D_59_a_password_of_the_environment_is_none_to_show(
    port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """D-59: what PGPASSWORD holds is not in what a driver's error says."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("PGPASSWORD", SECRET)
    sink = PostgresSink(PostgresConfig(host="127.0.0.1", port=port, user="me"))
    with pytest.raises(SinkWriteError) as caught:
        await sink.open()
    assert SECRET not in said(caught.value)
    assert SECRET not in caplog.text


async def test_D_59_an_error_that_quotes_the_password_is_shown_without(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D-59: neither it, nor what stands behind it."""
    asyncpg = pytest.importorskip("asyncpg")

    async def fail(**arguments: Any) -> Any:
        try:
            raise KeyError(arguments["password"])
        except KeyError:
            raise OSError("cannot connect") from None

    monkeypatch.setattr(asyncpg, "create_pool", fail)
    given = {"host": "127.0.0.1", "port": port, "password": SECRET}
    with pytest.raises(SinkWriteError, match="cannot connect") as caught:
        await PostgresSink(PostgresConfig(**given)).open()
    assert SECRET not in said(caught.value)

    async def quote(**arguments: Any) -> Any:
        raise OSError(f"password {arguments['password']} was wrong")

    monkeypatch.setattr(asyncpg, "create_pool", quote)
    with pytest.raises(SinkWriteError, match=r"password \*\*\* was wrong") as caught:
        await PostgresSink(PostgresConfig(**given)).open()
    assert SECRET not in said(caught.value)
    assert caught.value.__cause__ is None


def test_D_57_several_servers_reach_the_driver_as_several() -> None:
    """D-57: key=value with lists, as PostgreSQL's own tools take it."""
    config = PostgresConfig(dsn="host=a,b,c port=1,2,3 dbname=x")
    assert config.arguments() == {
        "host": ["a", "b", "c"],
        "port": [1, 2, 3],
        "database": "x",
    }
    assert config.target() == "postgres://a:1,b:2,c:3/x.public"
    config = PostgresConfig(dsn="host=a,b")
    assert config.target() == "postgres://a:5432,b:5432/?.public"
    with pytest.raises(ValueError, match="port"):
        PostgresConfig(dsn="host=a,b port=1,2,3")
