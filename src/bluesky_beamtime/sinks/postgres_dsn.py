"""What the dsn of a PostgreSQL server says, and what of it must not be shown.

No error quotes the dsn: where it is not understood, a password may be anywhere in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

_SCHEMES = ("postgres", "postgresql")
# key = value, where the value may be quoted: 'it''s' is written 'it\'s'.
_PAIR = re.compile(r"\s*([A-Za-z_]+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)*)\s*")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_HOST = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::(\d+))?")
_DRIVER_NAMES = {"dbname": "database", "hostaddr": "host"}
_DRIVER_TAKES = frozenset(
    ("host", "port", "user", "password", "database", "sslmode", "passfile")
)
_SECRET = ("password", "sslpassword")
# What else libpq knows: a word that is none of these may be a piece of a password.
_KNOWN = frozenset(
    (
        "application_name",
        "channel_binding",
        "client_encoding",
        "connect_timeout",
        "gssencmode",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "krbsrvname",
        "load_balance_hosts",
        "options",
        "service",
        "sslcert",
        "sslcrl",
        "sslkey",
        "sslpassword",
        "sslrootcert",
        "target_session_attrs",
        "tcp_user_timeout",
    )
)


@dataclass(frozen=True, slots=True)
class Dsn:
    """A dsn that was understood."""

    places: list[str]
    """``host:port`` of each server."""
    database: str | None
    """Name of the database."""
    arguments: dict[str, Any] = field(repr=False)
    """What the driver takes, the password included."""
    secrets: list[str] = field(repr=False)
    """What no message may contain."""


def understood(dsn: str, port: int) -> Dsn:
    """Return what a dsn says.

    Parameters
    ----------
    dsn
        ``postgresql://…`` or ``key=value …``.
    port
        Of a server that has none in it.

    Raises
    ------
    ValueError
        It is neither, or no password could be told from the rest of it.
    """
    if dsn.partition("://")[0] in _SCHEMES:
        return _of_url(dsn, port)
    return _of_pairs(dsn, port)


def _of_url(dsn: str, port: int) -> Dsn:
    rest = dsn.partition("://")[2]
    # Several servers are no URL for the standard library.
    authority = re.split(r"[/?]", rest, maxsplit=1)[0]
    user, at, servers = authority.rpartition("@")
    path, _, query = rest[len(authority) :].partition("?")
    pairs = [each.partition("=") for each in query.split("&") if each]
    # An unencoded "/", "?" or "#" in a password would make its end a path, and its
    # beginning the port of a server.
    if "#" in rest or "@" in path or not all(_KEY.fullmatch(key) for key, *_ in pairs):
        raise _unclear()
    given = {key: unquote(value) for key, _, value in pairs}
    hosts: list[str] = []
    ports: list[str | None] = []
    for server in servers.split(",") if servers else given.get("host", "?").split(","):
        match = _HOST.fullmatch(unquote(server))
        if match is None:
            raise _unclear()
        hosts.append(match[1])
        ports.append(match[2])
    if "port" in given and not any(ports):
        ports = list(_spread(given["port"].split(","), len(hosts)))
    # For the driver with every character encoded: a second "@" it takes for the first.
    name, colon, password = user.partition(":")
    safe = "".join((_encoded(name), colon, _encoded(password), at))
    safe = f"{dsn.partition('://')[0]}://{safe}{servers}{rest[len(authority) :]}"
    secrets = [dsn, safe, password, unquote(password), _encoded(password)]
    for key, _, value in pairs:
        if key in _SECRET:
            secrets += [value, unquote(value)]
    database = unquote(path.removeprefix("/"))
    return Dsn(
        [f"{host}:{own or port}" for host, own in zip(hosts, ports, strict=True)],
        database or given.get("dbname", given.get("database")),
        {"dsn": safe},
        secrets,
    )


def _encoded(text: str) -> str:
    return quote(unquote(text), safe="")


def _unclear() -> ValueError:
    return ValueError(
        "PostgresConfig: the dsn is no postgresql://user:password@host:port/database. "
        "In user and password, / ? # @ : % are written %2F %3F %23 %40 %3A %25; or "
        "give host, user, password and database instead of a dsn"
    )


def _spread(values: list[str], count: int) -> Iterable[str]:
    return values * count if len(values) == 1 else values[:count]


def _of_pairs(dsn: str, port: int) -> Dsn:
    pairs = _pairs(dsn)
    unknown = set(pairs) - _DRIVER_TAKES
    if unknown - _KNOWN:
        raise ValueError(
            "PostgresConfig: the dsn has a key that PostgreSQL does not know; a value "
            "with spaces in it stands in quotes: password='a b'"
        )
    if unknown:
        raise ValueError(
            f"PostgresConfig: the dsn has {', '.join(sorted(unknown))}, which the "
            "driver does not take; a URL may have it"
        )
    arguments: dict[str, Any] = dict(pairs)
    if "sslmode" in arguments:
        arguments["ssl"] = arguments.pop("sslmode")
    hosts = pairs.get("host", "?").split(",")
    given = pairs.get("port", str(port)).split(",")
    if not all(each.isdigit() for each in given) or len(given) not in (1, len(hosts)):
        raise ValueError("PostgresConfig: a port of the dsn is no number, or missing")
    ports = [int(each) for each in _spread(given, len(hosts))]
    if len(hosts) > 1:
        arguments["host"], arguments["port"] = hosts, ports
    elif "port" in arguments:
        arguments["port"] = ports[0]
    return Dsn(
        [f"{host}:{own}" for host, own in zip(hosts, ports, strict=True)],
        pairs.get("database"),
        arguments,
        [dsn, *(pairs[key] for key in _SECRET if key in pairs)],
    )


def _pairs(dsn: str) -> dict[str, str]:
    """Return the parts of ``key=value …``, under the names of the driver."""
    found: dict[str, str] = {}
    place = 0
    while place < len(dsn):
        match = _PAIR.match(dsn, place)
        if match is None or match.end() == place:
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
