"""``python -m bluesky_beamtime`` is the command ``beamtime``."""

from __future__ import annotations

from bluesky_beamtime.cli import main

if __name__ == "__main__":
    main()
