"""Addresses of sources of documents."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from bluesky_beamtime.errors import ServerError
from bluesky_beamtime.recording.ingesting import DocumentSource


def open_source(url: str) -> DocumentSource:
    """Return the source at an address.

    Parameters
    ----------
    url
        ``zmq://host:port`` of the outgoing side of a bluesky proxy, with ``?prefix=…``
        for one publisher, also ``tcp://…`` or ``ipc://…``;
        ``kafka://host:port/topic``, with ``?group=…`` for another consumer group.

    Raises
    ------
    ServerError
        It is no such address.
    MissingExtraError
        The package for it is not installed.
    """
    parts = urlsplit(url)
    options = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    if parts.scheme in ("zmq", "tcp", "ipc"):
        from bluesky_beamtime.recording.zmq_source import ZMQSource

        address = url.partition("?")[0]
        address = f"tcp://{parts.netloc}" if parts.scheme == "zmq" else address
        return ZMQSource(address, options.get("prefix", "").encode())
    if parts.scheme == "kafka" and parts.netloc and parts.path.strip("/"):
        from bluesky_beamtime.recording.kafka_source import KafkaSource

        group = options.get("group", "bluesky-beamtime")
        return KafkaSource(parts.netloc, parts.path.strip("/"), group=group)
    raise ServerError(
        f"{url!r} is no source of documents; write zmq://host:port or "
        "kafka://host:port/topic"
    )
