"""Where a PostgreSQL sink writes to, and how; passwords are never shown."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from bluesky_beamtime.sinks.sqlite import check_identifier

_SCHEMES = ("postgres", "postgresql")
# key = value, where the value may be quoted: 'it''s' is written 'it\'s'.
_PAIR = re.compile(r"\s*([A-Za-z_]+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)*)\s*")
_DRIVER_NAMES = {"dbname": "database", "hostaddr": "host"}
_DRIVER_TAKES = frozenset(
    ("host", "port", "user", "password", "database", "sslmode", "passfile")
)


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
            self._places()
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
        hosts, database = self._places()
        return f"postgres://{','.join(hosts)}/{database or '?'}.{self.schema}"

    def arguments(self) -> dict[str, Any]:
        """Return what the driver needs to connect, the password included."""
        if self.dsn is None:
            names = ("host", "port", "user", "password", "database")
            return {name: getattr(self, name) for name in names}
        if _is_url(self.dsn):
            return {"dsn": self.dsn}
        pairs = _pairs(self.dsn)
        unknown = sorted(set(pairs) - _DRIVER_TAKES)
        if unknown:
            raise ValueError(
                f"PostgresConfig: the dsn has {', '.join(unknown)}, which the driver "
                "does not take; a URL may have it"
            )
        arguments: dict[str, Any] = dict(pairs)
        if "sslmode" in arguments:
            arguments["ssl"] = arguments.pop("sslmode")
        if "port" in arguments:
            arguments["port"] = int(arguments["port"])
        return arguments

    def secrets(self) -> list[str]:
        """Return what no message may contain."""
        found = [self.password, self.dsn]
        if self.dsn is not None and _is_url(self.dsn):
            authority = self.dsn.partition("://")[2]
            user = re.split(r"[/?#]", authority, maxsplit=1)[0].rpartition("@")[0]
            given = user.partition(":")[2]
            found += [given, unquote(given)]
            found += parse_qs(urlsplit(self.dsn).query).get("password", [])
        elif self.dsn is not None:
            found.append(_pairs(self.dsn).get("password"))
        return [secret for secret in found if secret]

    def _places(self) -> tuple[list[str], str | None]:
        """Return ``host:port`` of each server, and the name of the database."""
        if self.dsn is None:
            return [f"{self.host}:{self.port}"], self.database
        if not _is_url(self.dsn):
            pairs = _pairs(self.dsn)
            return [
                f"{pairs.get('host', '?')}:{pairs.get('port', self.port)}"
            ], pairs.get("database")
        # Several servers are no URL for the standard library.
        rest = self.dsn.partition("://")[2]
        authority, *path = re.split(r"[/?#]", rest, maxsplit=1)
        hosts = authority.rpartition("@")[2]
        query = parse_qs(rest.partition("?")[2])
        database = ""
        if path and rest[len(authority)] == "/":
            database = unquote(re.split(r"[?#]", path[0], maxsplit=1)[0])
        if not hosts:
            hosts = ",".join(query.get("host", ["?"]))
        named = [unquote(host) for host in hosts.split(",")]
        return (
            [
                host if re.search(r":\d+$", host) else f"{host}:{self.port}"
                for host in named
            ],
            database
            or next(iter(query.get("dbname", query.get("database", []))), None),
        )


async def connect(driver: Any, config: PostgresConfig) -> Any:
    """Return a pool of connections to the server of a configuration."""
    return await driver.create_pool(
        **config.arguments(),
        min_size=config.pool_min_size,
        max_size=config.pool_max_size,
        command_timeout=config.command_timeout_s,
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
    for secret in config.secrets():
        text = text.replace(secret, "***")
    return text


def _is_url(dsn: str) -> bool:
    return dsn.partition("://")[0] in _SCHEMES


def _pairs(dsn: str) -> dict[str, str]:
    """Return the parts of ``key=value …``, under the names of the driver."""
    found: dict[str, str] = {}
    place = 0
    while place < len(dsn):
        match = _PAIR.match(dsn, place)
        if match is None or match.end() == place:
            # Not with the text: a password may be in it.
            raise ValueError(
                "PostgresConfig: the dsn is neither postgresql://… nor key=value pairs "
                f"(character {place + 1})"
            )
        key, value = match.groups()
        if value.startswith("'"):
            value = value[1:-1]
        value = re.sub(r"\\(.)", r"\1", value)
        found[_DRIVER_NAMES.get(key, key)] = value
        place = match.end()
    if not found:
        raise ValueError("PostgresConfig: the dsn is empty")
    return found
