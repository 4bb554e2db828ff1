"""What clients hear that subscribe to nodes of a beamtime."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any


class Unsubscribable:
    """A node of whose changes clients are not told.

    Others than the server write to a beamtime: whoever wants news asks again.
    """

    def make_ws_handler(
        self, websocket: Any, formatter: Any, uri: str
    ) -> Callable[..., Awaitable[None]]:
        """Return what ends a subscription in good order as soon as it begins.

        Left without an answer, or with an error, a client of Tiled waits for ever.
        """

        async def handle(
            sequence: int | None = None, already_accepted: bool = False
        ) -> None:
            if not already_accepted:
                await websocket.accept()
            reason = "a beamtime has no subscriptions: ask again for what is new"
            await websocket.close(code=1000, reason=reason)

        return handle
