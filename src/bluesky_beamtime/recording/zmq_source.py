"""Documents from bluesky's 0MQ proxy."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from typing import Any

from bluesky_beamtime.database.decoding import decode
from bluesky_beamtime.database.kinds import is_mapping
from bluesky_beamtime.errors import DocumentError, MissingExtraError, ServerError
from bluesky_beamtime.recording.document_files import unpack
from bluesky_beamtime.recording.ingesting import Message
from bluesky_beamtime.recording.pickled import unpickle

_MOST_AT_ONCE = 1000
_HEARTBEAT_MS = 2000


class ZMQSource:
    """What the publishers behind a proxy send, from the moment of connecting.

    The connection is made again by itself when the proxy has gone and come back; what
    was sent meanwhile is lost, and noticed by :class:`Ingest`. Documents may be in
    msgpack, in JSON, or pickled, as bluesky's ``Publisher`` does by default; nothing in
    them is executed.

    Parameters
    ----------
    address
        Of the proxy's outgoing side, such as ``"tcp://localhost:5578"``.
    prefix
        Take only messages of publishers with this prefix.

    Raises
    ------
    MissingExtraError
        pyzmq is not installed.
    ServerError
        The address is none.
    """

    def __init__(self, address: str, prefix: bytes = b"") -> None:
        try:
            module: Any = importlib.import_module("zmq")
        except ImportError as error:
            raise MissingExtraError("receiving 0MQ messages", "zmq", "zmq") from error
        self._again: type[Exception] = module.Again
        self._noblock: int = module.NOBLOCK
        self._context: Any = module.Context()
        self._socket: Any = self._context.socket(module.SUB)
        # Never drop what has arrived: it waits in memory until it is stored.
        self._socket.setsockopt(module.RCVHWM, 0)
        self._socket.setsockopt(module.LINGER, 0)
        self._socket.setsockopt(module.HEARTBEAT_IVL, _HEARTBEAT_MS)
        self._socket.setsockopt(module.SUBSCRIBE, prefix + b" " if prefix else b"")
        try:
            self._socket.connect(address)
        except module.ZMQError as error:
            self.close()
            raise ServerError(f"{address!r} is no address of 0MQ: {error}") from error

    def poll(self, timeout: float) -> Iterable[Message]:
        """Return messages that have arrived, after at most ``timeout`` seconds."""
        if not self._socket.poll(int(timeout * 1000)):
            return ()
        return self._arrived()

    def _arrived(self) -> Iterator[Message]:
        for _ in range(_MOST_AT_ONCE):
            try:
                content = self._socket.recv(self._noblock)
            except self._again:
                return
            yield read_message(content)

    def acknowledge(self) -> None:
        """Do nothing: 0MQ sends each message once."""

    def close(self) -> None:
        """Let go of the connection; may be called again."""
        self._socket.close()
        self._context.term()


def read_message(content: bytes) -> Message:
    """Return the document of a message ``<prefix> <name> <document>``."""
    parts = content.split(b" ", 2)
    if len(parts) < 3:
        return Message(None, content, "a message is not '<prefix> <name> <document>'")
    name = parts[1].decode("utf-8", "replace")
    try:
        doc = _deserialize(parts[2])
        if not is_mapping(doc):
            raise DocumentError(f"a document is a mapping, not {doc!r:.80}")
    except DocumentError as error:
        return Message(name, content, f"a {name!r:.40} message: {error}")
    return Message(name, doc)


def _deserialize(content: bytes) -> Any:
    if content[:1] == b"{":
        return decode(content)
    # The second byte of a pickle is its protocol; an empty mapping is a single byte.
    if content[:1] == b"\x80" and len(content) > 1:
        return unpickle(content)
    return unpack(content)
