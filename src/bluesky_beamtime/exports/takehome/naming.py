"""Names for what belongs to a run, which every file system takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bluesky_beamtime.exports.files import safe_name

_LONGEST = 60


def short_name(text: str) -> str:
    """Return a name of at most 60 bytes and without dots."""
    name = safe_name(text).replace(".", "_").encode()[:_LONGEST]
    return name.decode("utf-8", "ignore")


def run_label(summary: Mapping[str, Any]) -> str:
    """Return what people call a run: its number, else the beginning of its uid."""
    number = summary["scan_id"]
    return summary["uid"][:8] if number is None else str(number)


def run_names(summaries: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return a name for each uid, such as ``214_scan``, none twice.

    They differ in more than upper and lower case, and none is one that Windows keeps
    for itself.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for summary in summaries:
        first = "run" if summary["scan_id"] is None else ""
        words = [first, run_label(summary), summary["plan_name"] or ""]
        stem = short_name("_".join(filter(None, words)))
        name, number = stem, 2
        while name.casefold() in taken:
            name, number = f"{stem}_{number}", number + 1
        taken.add(name.casefold())
        names[summary["uid"]] = name
    return names
