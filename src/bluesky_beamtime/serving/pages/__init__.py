"""Pages for the browser beside Tiled's own: the runs, their plots and frames."""

from bluesky_beamtime.serving.pages.routes import add_pages

__all__ = ["add_pages"]
