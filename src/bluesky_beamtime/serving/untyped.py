"""Parts of Tiled and pyarrow that lack annotations."""

from __future__ import annotations

from typing import Any, cast

import h5py as _h5py
import pyarrow
from tiled import config as _config
from tiled.media_type_registration import default_serialization_registry
from tiled.server import app as _app
from tiled.structures import array as _array
from tiled.structures import table as _table

pa = cast("Any", pyarrow)
h5py = cast("Any", _h5py)
build_app: Any = cast("Any", _app).build_app
build_app_from_config: Any = cast("Any", _app).build_app_from_config
parse_configs: Any = cast("Any", _config).parse_configs
ArrayStructure: Any = cast("Any", _array).ArrayStructure
TableStructure: Any = cast("Any", _table).TableStructure
serialization_registry: Any = cast("Any", default_serialization_registry)

__all__ = [
    "ArrayStructure",
    "TableStructure",
    "build_app",
    "build_app_from_config",
    "h5py",
    "pa",
    "parse_configs",
    "serialization_registry",
]
