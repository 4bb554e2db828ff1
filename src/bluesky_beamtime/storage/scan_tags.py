"""What is kept with a scan, as JSON: NumPy becomes plain, NaN and infinities tagged."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

from bluesky_beamtime.errors import MetadataError
from bluesky_beamtime.storage.layout import plain_json

logger = logging.getLogger(__name__)


def plain_tags(tags: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy as plain dicts, lists, texts and numbers.

    NumPy's numbers and arrays become Python's; NaN is ``{"$float": "nan"}``, as in the
    records of a beamtime.

    Raises
    ------
    MetadataError
        A value that JSON cannot hold.
    """
    try:
        return plain_json(_tagged(tags))
    except RecursionError as error:
        raise MetadataError(f"tags cannot be written as JSON: {error}") from error


def usable_tags(tags: dict[str, Any]) -> dict[str, Any]:
    """Return a plain copy; what JSON cannot hold is taken out, and logged as an error.

    Listeners fill the tags, and a scan is worth more than one of them.
    """
    plain: dict[str, Any] = {}
    for key, value in list(tags.items()):
        try:
            plain |= plain_tags({key: value})
        except Exception as error:
            logger.error("the scan is kept without its tag %r: %s", key, error)
            tags.pop(key, None)
    return plain


def _tagged(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": str(float(value))}
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return {key: _tagged(item) for key, item in items}
    if isinstance(value, (list, tuple)):
        return [_tagged(item) for item in cast("Sequence[Any]", value)]
    tolist = getattr(value, "tolist", None)
    plain = tolist() if callable(tolist) else value
    # Extended precision has no number of Python's that it could become.
    return value if type(plain) is type(value) else _tagged(plain)
