"""What an archive should hold, as it says itself; nothing it says is believed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bluesky_beamtime.errors import ArchiveError, PathError
from bluesky_beamtime.exports.archive_state import STATE_FILE, ArchiveState
from bluesky_beamtime.exports.far_end import FarEnd, unreachable
from bluesky_beamtime.storage.backends import check_key


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveListing:
    """The files of an archive and their hashes."""

    state: ArchiveState
    """What the archive says of itself."""
    hashes: Mapping[str, str]
    """SHA-256 of each file of the beamtime, by name. The names are relative paths that
    lead nowhere else."""
    finished: bool
    """Whether the manifest fits; if not, an archive was interrupted, and the hashes are
    those of what had been compared by then."""
    size: int
    """Bytes of all files."""


def list_archive(far: FarEnd) -> ArchiveListing:
    """Return what an archive should hold.

    Raises
    ------
    ArchiveError
        There is no archive, it is damaged, cannot be reached, or has names that lead
        elsewhere.
    """
    with unreachable(far.url):
        state, manifest = far.read_state(), far.read_manifest()
        finished = far.is_finished(manifest)
    if state is None:
        if manifest is not None:
            raise ArchiveError(
                f"{far.url} has lost its {STATE_FILE}; its files are there still: "
                "'sha256sum -c MANIFEST.sha256' checks them",
                names=(STATE_FILE,),
                filename=far.url,
            )
        raise ArchiveError(
            f"there is no archive in {far.url}; check the URL, or begin one with "
            "'beamtime archive FILE URL'",
            filename=far.url,
        )
    hashes = {name: entry.sha256 for name, entry in state.entries.items()}
    if finished and manifest is not None:
        hashes = {k: v for k, v in manifest.items() if k != STATE_FILE}
    _check_names(hashes, far.url)
    size = sum(state.entries[name].size for name in hashes if name in state.entries)
    return ArchiveListing(state=state, hashes=hashes, finished=finished, size=size)


def _check_names(names: Mapping[str, str], url: str) -> None:
    for name in names:
        try:
            check_key(name)
        except PathError as error:
            raise ArchiveError(
                f"{url} has a file that is refused: {error}. Whoever made this archive "
                "may have meant harm; nothing was written",
                names=(name,),
                filename=url,
            ) from error
