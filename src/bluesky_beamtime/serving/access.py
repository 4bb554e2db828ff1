"""Who sees which runs of a server with users."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tiled.queries import AccessTagsFilter

from bluesky_beamtime.serving.catalog import RunCatalog

EVERYTHING = "*"
"""A tag that gives all runs, also those without tags."""

_READING = frozenset({"read:metadata", "read:data"})


class TagPolicy:
    """An access policy for a configuration file of Tiled: runs by their tags.

    A run is shown to those who have one of its tags, which are the list
    ``tiled_access_tags`` of its start document. Nobody may change anything.

    Parameters
    ----------
    provider
        Name of the authentication provider whose users are meant.
    users
        The tags of each user; ``*`` gives all runs.
    everyone
        Tags that everybody has, those without a name too if the server lets them in.
    """

    def __init__(
        self,
        *,
        provider: str,
        users: Mapping[str, Sequence[str]],
        everyone: Sequence[str] = (),
    ) -> None:
        self._provider = provider
        self._users = {name: frozenset(tags) for name, tags in users.items()}
        self._everyone = frozenset(everyone)

    def _tags(self, principal: Any, only: Collection[str] | None) -> frozenset[str]:
        tags = self._everyone
        for identity in () if principal is None else principal.identities:
            if identity.provider == self._provider:
                tags |= self._users.get(identity.id, frozenset())
        # A key may be made for some of the tags of its user.
        return tags if only is None else tags & frozenset(only)

    async def allowed_scopes(
        self,
        node: Any,
        principal: Any,
        authn_access_tags: Collection[str] | None,
        authn_scopes: Any,
    ) -> frozenset[str]:
        """Return what somebody may do with a node.

        A run without a right to it is no more than a missing one. What is within a run
        has no tags of its own: it is reached through its run alone.
        """
        wanted: Collection[str] | None = getattr(node, "access_tags", None)
        tags = self._tags(principal, authn_access_tags)
        if wanted is None or EVERYTHING in tags or tags & frozenset(wanted):
            return _READING
        return frozenset()

    async def filters(
        self,
        node: Any,
        principal: Any,
        authn_access_tags: Collection[str] | None,
        authn_scopes: Any,
        scopes: Collection[str],
    ) -> list[Any]:
        """Return what narrows a node to what somebody may see."""
        tags = self._tags(principal, authn_access_tags)
        if not isinstance(node, RunCatalog) or EVERYTHING in tags:
            return []
        return [AccessTagsFilter(sorted(tags))]

    async def init_node(self, *_: Any, **__: Any) -> Any:
        """Refuse: nothing is written through this server.

        Raises
        ------
        ValueError
            Always.
        """
        raise ValueError("a beamtime is read-only here")

    modify_node = init_node
