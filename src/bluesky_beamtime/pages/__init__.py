"""Runs as pages for a browser: pictures, drawings, and what stands beside them."""

from .curves import PLOT_STYLE as PLOT_STYLE
from .curves import plot_svg as plot_svg
from .html import environment as environment
from .html import url_part as url_part
from .pictures import frame_png as frame_png
from .pictures import thumbnail_png as thumbnail_png
from .showing import shorten as shorten
from .showing import stream_facts as stream_facts
