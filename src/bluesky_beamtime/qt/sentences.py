"""What a window says of a ScanStorage, in words."""

from __future__ import annotations

import errno
import html

from bluesky_beamtime.storage import ScanStatus


def doing(status: ScanStatus) -> str:
    """Return what is reserved, being saved and failed, in one line."""
    counts = [
        (status.reserved, "reserved"),
        (status.writing, "being saved"),
        (len(status.failures), "not saved"),
    ]
    said = [f"{number} {what}" for number, what in counts if number]
    if said:
        number, _, rest = said[0].partition(" ")
        said[0] = f"{number} scan{'' if number == '1' else 's'} {rest}"
        return ", ".join(said)
    if not status.enabled:
        return "Switched off: scans are not saved"
    return "Nothing reserved, nothing being saved"


def next_file(status: ScanStatus, typed_in: bool) -> tuple[str, str]:
    """Return the next number and the next file.

    Parameters
    ----------
    status
        Of the storage.
    typed_in
        Whether its number is not that of the place where scans go by now.
    """
    said, target = "", status.target
    if status.number is not None:
        said = f"next number: {'…' if typed_in else status.number}"
        if typed_in:
            target = target.with_name(f"{status.name}_…{target.suffix}")
    return said, str(target) if status.enabled else "none"


def trouble(status: ScanStatus) -> str:
    """Return why the first scan was not saved, and how many more there are."""
    if not status.failures:
        return ""
    target, error = status.failures[0]
    more = len(status.failures) - 1
    others = f"\n… and {more} more." if more else ""
    # That of a folder that was moved or removed must not be told to be there.
    gone = isinstance(error, OSError) and error.errno == errno.ENOENT
    kept = "" if gone else "\nIts data are kept on disk."
    return f"{target.name} was not saved: {error}{others}{kept}"


def troubles(status: ScanStatus) -> str:
    """Return every scan that was not saved with its error, for a tooltip."""
    return as_tooltip(
        "\n\n".join(f"{target}\n{error}" for target, error in status.failures)
    )


def as_tooltip(text: str) -> str:
    """Return a text as Qt shows it in a tooltip: names in it are no markup."""
    return f"<qt>{html.escape(text).replace(chr(10), '<br>')}</qt>" if text else ""
