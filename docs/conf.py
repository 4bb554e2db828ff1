"""How the documentation is built; nothing is fetched from the network."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "src"), str(HERE / "_extensions")]

from bluesky_beamtime._version import __version__

project = "bluesky-beamtime"
author = "bluesky-beamtime contributors"
copyright = f"2026, {author}"
version = release = __version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.viewcode",
    "sphinx_design",
    "schema_tables",
]
exclude_patterns = ["_build", "explanations/decisions/COPYME.md"]
# A link that leads nowhere is an error, except to what is documented elsewhere.
nitpicky = True
nitpick_ignore_regex = [
    # No inventory of a neighbour is kept here: its names stay without a link.
    (
        r"py:.*",
        r"(abc|asyncio|bluesky|collections|concurrent|contextlib|dask|datetime|errno"
        r"|event_model|logging|np|numpy|ophyd_async|os|pathlib|sqlalchemy|sqlite3"
        r"|threading|typing|weakref|xarray|xr|pd|zarr|qtpy|QtWidgets)\..*",
    ),
    # What a signature names and no package re-exports is internal: read its source.
    (r"py:(class|func)", r"bluesky_beamtime(\.\w+){3,}"),
    (r"py:mod", r"bluesky_beamtime(\.\w+){2,}"),
    (r"py:(class|meth|attr|func)", r"(.*\.)?_\w+"),
    # An alias for what has bytes, and the base class of zarr's stores.
    (r"py:class", r"BytesLike|Store"),
    # Short for the classes of reference/errors, in docstrings of other modules.
    (r"py:class", r"\w+Error"),
    (r"py:class", r"RunEngine"),
    # Attributes that Python's own exceptions have, and default factories.
    (r"py:obj", r"errno|filename"),
    # Signals, in the table of attributes of their class.
    (r"py:attr", r"tagRequest|saveFailed|changed"),
    (r"py:class", r"(dict|list|tuple)\[.*"),
]

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

numpydoc_show_class_members = False  # autodoc lists them already
autodoc_member_order = "bysource"
# The types stand in the signature; the docstring says what they mean.
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
autodoc_mock_imports = ["qtpy"]  # whose bindings are as big as all the rest
add_module_names = False
python_use_unqualified_type_names = True
doctest_global_setup = "import numpy as np"

html_theme = "pydata_sphinx_theme"
html_title = "bluesky-beamtime"
html_static_path: list[str] = []
html_show_sourcelink = False
html_theme_options = {
    "navigation_with_keys": False,
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "navbar_end": ["theme-switcher"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "tango",
}
