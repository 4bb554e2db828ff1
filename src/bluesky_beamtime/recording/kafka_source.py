"""Documents from a topic of Kafka, as bluesky-kafka publishes them."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterable, Iterator
from typing import Any

from bluesky_beamtime.errors import DocumentError, MissingExtraError, ServerError
from bluesky_beamtime.recording.document_files import named_document, unpack
from bluesky_beamtime.recording.ingesting import Message

logger = logging.getLogger(__name__)

_MOST_AT_ONCE = 1000


class KafkaSource:
    """The documents of one topic, from where its consumer group stopped last.

    A message is ``(name, document)`` in msgpack with msgpack-numpy's arrays. Its offset
    is committed when it is stored: what was received and not stored comes again.

    Parameters
    ----------
    servers
        Bootstrap servers, such as ``"localhost:9092"``.
    topic
        The topic.
    group
        Consumer group, which remembers how far the topic was read.
    consumer
        Has ``subscribe``, ``poll``, ``commit`` and ``close`` as those of
        ``confluent_kafka.Consumer``, which is what is made by default.

    Raises
    ------
    MissingExtraError
        confluent-kafka is not installed.
    """

    def __init__(
        self,
        servers: str,
        topic: str,
        *,
        group: str = "bluesky-beamtime",
        consumer: Any = None,
    ) -> None:
        self._consumer = _consumer(servers, group) if consumer is None else consumer
        self._servers = servers
        self._consumer.subscribe([topic])

    def poll(self, timeout: float) -> Iterable[Message]:
        """Return messages that have arrived, after at most ``timeout`` seconds."""
        first = self._consumer.poll(timeout)
        return () if first is None else self._arrived(first)

    def _arrived(self, message: Any) -> Iterator[Message]:
        for _ in range(_MOST_AT_ONCE):
            if message is None:
                return
            read = self._read(message)
            if read is not None:
                yield read
            message = self._consumer.poll(0)

    def _read(self, message: Any) -> Message | None:
        error = message.error()
        if error is not None:
            # The client connects again by itself, but for what will not change.
            if getattr(error, "fatal", lambda: False)():
                raise ServerError(f"Kafka at {self._servers} refused: {error}")
            return None
        content = message.value()
        try:
            name, doc = named_document(unpack(content or b""))
        except DocumentError as problem:
            return Message(None, content, f"a message of Kafka: {problem}")
        return Message(name, doc)

    def acknowledge(self) -> None:
        """Commit the offsets of what is stored."""
        try:
            self._consumer.commit(asynchronous=False)
        except Exception as error:
            # It comes again, and is recognised by its uid.
            if "NO_OFFSET" not in str(error):
                logger.warning("offsets could not be committed: %s", error)

    def close(self) -> None:
        """Let go of the connection."""
        self._consumer.close()


def _consumer(servers: str, group: str) -> Any:
    try:
        module: Any = importlib.import_module("confluent_kafka")
    except ImportError as error:
        raise MissingExtraError(
            "receiving from Kafka", "confluent_kafka", "kafka"
        ) from error
    return module.Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
