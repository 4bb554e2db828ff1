"""Frames to files: writers, stores, paths, and reading back."""

from typing import TYPE_CHECKING, Any

from .backends import LocalBackend as LocalBackend
from .backends import MemoryBackend as MemoryBackend
from .backends import ObjectStoreBackend as ObjectStoreBackend
from .backends import StorageBackend as StorageBackend
from .backends import as_zarr_store as as_zarr_store
from .backends import copy_prefix as copy_prefix
from .backends import open_backend as open_backend
from .backends import register_backend as register_backend
from .documents import quote_name as quote_name
from .documents import stream_datum_doc as stream_datum_doc
from .documents import stream_resource_doc as stream_resource_doc
from .files import FolderLock as FolderLock
from .footprint import Footprint as Footprint
from .footprint import HasFootprint as HasFootprint
from .frame_store import FrameStore as FrameStore
from .hdf5 import HDF5Writer as HDF5Writer
from .integrity import ArrayReport as ArrayReport
from .integrity import StoreReport as StoreReport
from .integrity import repair_store as repair_store
from .integrity import verify_store as verify_store
from .layout import create_group as create_group
from .metadata import clear_metadata as clear_metadata
from .metadata import register_metadata as register_metadata
from .metadata import snapshot_metadata as snapshot_metadata
from .opening import open_frames as open_frames
from .paths import AcquisitionPathProvider as AcquisitionPathProvider
from .paths import FilenameProvider as FilenameProvider
from .paths import PathInfo as PathInfo
from .paths import PathProvider as PathProvider
from .paths import SessionPathProvider as SessionPathProvider
from .paths import from_uri as from_uri
from .paths import to_uri as to_uri
from .prepare import PrepareInfo as PrepareInfo
from .reader import FrameArray as FrameArray
from .registry import HasWriter as HasWriter
from .registry import get_available_writers as get_available_writers
from .registry import make_writer as make_writer
from .registry import register_writer as register_writer
from .scan_status import ScanStatus as ScanStatus
from .sharded_array import ShardedArray as ShardedArray
from .sink import FrameSink as FrameSink
from .source import SourceInfo as SourceInfo
from .space import SpaceReport as SpaceReport
from .space import check_space as check_space
from .space import frames_size as frames_size
from .space import free_space as free_space
from .space import human_size as human_size
from .uploader import StoreUploader as StoreUploader
from .writer import Writer as Writer
from .zarr import ZarrWriter as ZarrWriter

if TYPE_CHECKING:
    from .scan import ScanStorage as ScanStorage


def __getattr__(name: str) -> Any:
    # Its signals take a while to import.
    if name == "ScanStorage":
        from .scan import ScanStorage

        return ScanStorage
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
