"""Where a PostgreSQL sink writes to, and how; passwords are never shown."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from bluesky_beamtime.sinks.postgres_dsn import Dsn, understood
from bluesky_beamtime.sinks.sql import check_identifier


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresConfig:
    """Where a :class:`PostgresSink` writes to.

    Either ``dsn``, or ``host`` with ``port``, ``user``, ``password`` and ``database``.
    Neither ``repr`` nor :meth:`target` shows a password.
    """

    dsn: str | None = field(default=None, repr=False)
    """``postgresql://user:password@host:port/database`` or ``host=… dbname=…``."""
    host: str | None = None
    """Name or address of the server."""
    port: int = 5432
    """Its port."""
    user: str | None = None
    """Role to log in as."""
    password: str | None = field(default=None, repr=False)
    """Its password."""
    database: str | None = None
    """Name of the database."""
    schema: str = "public"
    """SQL schema of the tables."""
    table_readings: str = "readings"
    """Table of the readings."""
    table_blocks: str = "blocks"
    """Table with a row about each block."""
    table_samples: str = "samples"
    """Table of the samples of blocks, if they are stored."""
    pool_min_size: int = 1
    """Connections that are always there."""
    pool_max_size: int = 4
    """Connections at most."""
    statement_timeout_ms: int = 30_000
    """After how long the server gives a statement up; 0 for never."""
    command_timeout_s: float = 10.0
    """How long a call of the driver may take, seconds."""
    connect_timeout_s: float = 10.0
    """How long connecting, and closing, may take, seconds."""
    create_tables: bool = False
    """Make tables and columns; else they must be there."""
    use_copy: bool = True
    """Write with COPY; else with INSERT."""

    def __post_init__(self) -> None:
        if (self.dsn is None) == (self.host is None):
            raise ValueError("PostgresConfig takes either dsn or host: give one")
        if self.dsn is not None:
            apart = [
                name
                for name in ("user", "password", "database")
                if getattr(self, name) is not None
            ]
            if apart:
                raise ValueError(
                    f"PostgresConfig: {', '.join(apart)} beside a dsn, which says it "
                    "already: give one of them"
                )
            # Says what is wrong with it before anything is connected.
            self._dsn()
        for name in ("schema", "table_readings", "table_blocks", "table_samples"):
            check_identifier(getattr(self, name), name)
        tables = {self.table_readings, self.table_blocks, self.table_samples}
        if len(tables) < 3:
            raise ValueError(f"two of the tables {', '.join(tables)} have one name")
        if self.pool_min_size < 1 or self.pool_max_size < self.pool_min_size:
            raise ValueError(
                f"pool_min_size={self.pool_min_size} and pool_max_size="
                f"{self.pool_max_size}: at least 1, and the second not below the first"
            )
        if self.statement_timeout_ms < 0:
            raise ValueError(
                f"statement_timeout_ms must be >= 0, got {self.statement_timeout_ms!r}"
            )
        for name in ("command_timeout_s", "connect_timeout_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)!r}")

    def target(self) -> str:
        """Return ``postgres://host:port/database.schema``, never with a password."""
        dsn = self._dsn()
        if dsn is None:
            places, database = [f"{self.host}:{self.port}"], self.database
        else:
            places, database = dsn.places, dsn.database
        return f"postgres://{','.join(places)}/{database or '?'}.{self.schema}"

    def arguments(self) -> dict[str, Any]:
        """Return what the driver needs to connect, the password included."""
        dsn = self._dsn()
        if dsn is not None:
            return dict(dsn.arguments)
        names = ("host", "port", "user", "password", "database")
        return {name: getattr(self, name) for name in names}

    def secrets(self) -> list[str]:
        """Return what no message may contain."""
        dsn = self._dsn()
        # The driver looks there when nobody says a password.
        found = [self.password, os.environ.get("PGPASSWORD")]
        found += [] if dsn is None else dsn.secrets
        return [secret for secret in found if secret]

    def _dsn(self) -> Dsn | None:
        if self.dsn is None:
            return None
        try:
            return understood(self.dsn, self.port)
        except ValueError as error:
            text = str(error)
        # Not from there, where the variables of the frames hold it in pieces.
        raise ValueError(text)


async def connect(driver: Any, config: PostgresConfig) -> Any:
    """Return a pool of connections to the server of a configuration."""
    return await driver.create_pool(
        **config.arguments(),
        min_size=config.pool_min_size,
        max_size=config.pool_max_size,
        command_timeout=config.command_timeout_s,
        # Another sink may change the type of a column: COPY with the one it had would
        # store other numbers, without an error.
        statement_cache_size=0,
        reset=_keep,
        server_settings={
            "application_name": "bluesky-beamtime",
            "statement_timeout": str(int(config.statement_timeout_ms)),
        },
    )


async def _keep(connection: Any) -> None:
    """Leave a connection as it is: the sink changes no settings of it."""


def cleaned(error: Exception, config: PostgresConfig) -> str:
    """Return what an error says, without a password."""
    text = str(error)
    # The longest first: one may be a piece of another.
    for secret in sorted(config.secrets(), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def shown(
    error: BaseException, config: PostgresConfig, *, frames: bool
) -> BaseException | None:
    """Return an error that may stand behind another; None if a password is in it.

    Without frames it has no traceback: those of the driver that connects hold the
    password among their variables, and some programs show them.
    """
    secrets = config.secrets()
    each: BaseException | None = error
    while each is not None:
        said = f"{each!r} {each}"
        if any(secret in said for secret in secrets):
            return None
        if not frames:
            each.__traceback__ = None
        each = each.__cause__ or each.__context__
    return error
