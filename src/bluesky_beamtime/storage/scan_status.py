"""What a ScanStorage is set to and busy with, as one value that a window can show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanStatus:
    """Settings and doings of a :class:`ScanStorage`, all of one moment.

    Attributes
    ----------
    base, folder, name : str
        The settings.
    numbered, enabled : bool
        The settings.
    number : int or None
        Of the next scan; None without numbering.
    target : Path
        The file, or for Zarr the folder, that the next scan becomes; absolute.
    reserved, writing : int
        Scans that are reserved, and that are being saved or wait for it.
    failures : tuple of (Path, Exception)
        Scans that could not be saved: the file each should have become, and why.
    """

    base: str
    folder: str
    name: str
    numbered: bool
    enabled: bool
    number: int | None
    target: Path
    reserved: int
    writing: int
    failures: tuple[tuple[Path, Exception], ...]
