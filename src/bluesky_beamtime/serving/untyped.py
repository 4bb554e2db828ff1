"""Parts of Tiled and pyarrow that lack annotations."""

from __future__ import annotations

from typing import Any, cast

import h5py as _h5py
import pyarrow
import regex as _regex
from tiled import config as _config
from tiled import media_type_registration as _media
from tiled import utils as _utils
from tiled.server import app as _app
from tiled.structures import array as _array
from tiled.structures import table as _table

pa = cast("Any", pyarrow)
h5py = cast("Any", _h5py)
regex = cast("Any", _regex)
build_app: Any = cast("Any", _app).build_app
build_app_from_config: Any = cast("Any", _app).build_app_from_config
parse_configs: Any = cast("Any", _config).parse_configs
ArrayStructure: Any = cast("Any", _array).ArrayStructure
TableStructure: Any = cast("Any", _table).TableStructure
safe_json_dump: Any = cast("Any", _utils).safe_json_dump
serialization_registry: Any = cast("Any", _media).default_serialization_registry
compression_registry: Any = cast("Any", _media).default_compression_registry
CompressionRegistry: Any = cast("Any", _media).CompressionRegistry

__all__ = [
    "ArrayStructure",
    "CompressionRegistry",
    "TableStructure",
    "build_app",
    "build_app_from_config",
    "compression_registry",
    "h5py",
    "pa",
    "parse_configs",
    "regex",
    "safe_json_dump",
    "serialization_registry",
]
