"""Work for some threads, never more of it in hand than they need."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Generic, Self, TypeVar

_T = TypeVar("_T")

_SECONDS_BETWEEN_LOOKS = 0.2


class Turns(Generic[_T]):
    """Runs work in threads and hands its results to the thread that gives it out.

    Parameters
    ----------
    threads
        How many.
    take
        Called with each result, in the calling thread.
    look
        Called in the calling thread a few times a second while it waits.
    give_up
        Called when the ``with`` block ends with an exception, to end what is running.
    """

    def __init__(
        self,
        threads: int,
        take: Callable[[_T], None],
        look: Callable[[], None],
        give_up: Callable[[], None],
    ) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="beamtime-turn")
        self._most = 3 * threads
        self._take = take
        self._look = look
        self._give_up = give_up
        self._flying: set[Future[_T]] = set()
        self._waiting: deque[tuple[set[Future[_T]], Callable[[], _T]]] = deque()

    def do(self, work: Callable[[], _T]) -> None:
        """Have work done; what an earlier one raised is raised here."""
        while len(self._flying) >= self._most:
            self._wait()
        self._flying.add(self._pool.submit(work))

    def do_afterwards(self, work: Callable[[], _T]) -> None:
        """Have work done when all is done that was given out before."""
        self._waiting.append((set(self._flying), work))
        while len(self._waiting) > self._most:
            self._wait()

    def finish(self) -> None:
        """Wait for everything."""
        while self._flying or self._waiting:
            self._wait()

    def _wait(self) -> None:
        if self._flying:
            done, self._flying = wait(
                self._flying, _SECONDS_BETWEEN_LOOKS, FIRST_COMPLETED
            )
            for each in done:
                self._take(each.result())
        self._look()
        while self._waiting and not self._waiting[0][0] & self._flying:
            self._flying.add(self._pool.submit(self._waiting.popleft()[1]))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._give_up()
        self._pool.shutdown(cancel_futures=kind is not None)
