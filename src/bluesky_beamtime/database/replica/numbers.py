"""Scan numbers that several machines share, without waiting for the server."""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as NotInTime

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from bluesky_beamtime.database.replica.server import Server, limited

logger = logging.getLogger(__name__)

_LARGEST = 2**53
# After a failure the server is asked again at the earliest after so many seconds.
_REST = 5.0
# Larger than every number that was given or recorded there, in one statement.
_NEXT = text(
    "INSERT INTO meta(key, value) SELECT 'last_scan_id', "
    "(greatest(:at_least, coalesce((SELECT max(scan_id) FROM runs "
    "WHERE scan_id < :largest), 0)) + 1)::text "
    "ON CONFLICT (key) DO UPDATE SET value = "
    "greatest(meta.value::bigint + 1, excluded.value::bigint)::text RETURNING value"
)


class ScanNumbers:
    """Asks a server for scan numbers, and does not wait for it if it is slow.

    Parameters
    ----------
    server
        The server.
    patience
        Seconds after which a plan goes on without the server.
    """

    def __init__(self, server: Server, *, patience: float = 0.15) -> None:
        self._server = server
        self._patience = patience
        self._requests: queue.SimpleQueue[tuple[int, Future[int]] | None] = (
            queue.SimpleQueue()
        )
        self._busy = threading.Event()
        self._again_at = 0.0
        self._thread = threading.Thread(
            target=self._run, name="beamtime-scan-numbers", daemon=True
        )
        self._thread.start()

    def reserve(self, at_least: int) -> int | None:
        """Return a number larger than ``at_least`` and than any on the server.

        None if the server did not answer in time: it is away, or slow.
        """
        if self._busy.is_set() or time.monotonic() < self._again_at:
            return None
        answer: Future[int] = Future()
        self._busy.set()
        self._requests.put((min(at_least, _LARGEST - 1), answer))
        try:
            return answer.result(self._patience)
        except (NotInTime, CancelledError, SQLAlchemyError, OSError, ValueError):
            return None

    def close(self) -> None:
        """End the thread, as soon as the server lets go of it."""
        self._requests.put(None)

    def _run(self) -> None:
        engine = self._server.engine()
        connection: Connection | None = None
        try:
            connection = self._connect(engine)
            while (request := self._requests.get()) is not None:
                at_least, answer = request
                try:
                    connection = connection or engine.connect()
                    number = self._ask(connection, at_least)
                except Exception as error:
                    self._again_at = time.monotonic() + _REST
                    self._drop(connection)
                    connection = None
                    self._busy.clear()
                    answer.set_exception(error)
                else:
                    self._busy.clear()
                    answer.set_result(number)
        finally:
            self._drop(connection)
            engine.dispose()

    def _connect(self, engine: Engine) -> Connection | None:
        """Connect before the first plan asks."""
        try:
            return engine.connect()
        except SQLAlchemyError:
            return None

    def _ask(self, connection: Connection, at_least: int) -> int:
        values = {"at_least": at_least, "largest": _LARGEST}
        with limited(connection, self._server.connect_timeout), connection.begin():
            return int(json.loads(connection.execute(_NEXT, values).scalar_one()))

    def _drop(self, connection: Connection | None) -> None:
        if connection is not None:
            try:
                connection.invalidate()
                connection.close()
            except SQLAlchemyError:
                pass
