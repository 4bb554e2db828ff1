"""Byte stores by URL: local folders, memory, and object stores."""

from .asynchronous import AsyncBackend as AsyncBackend
from .base import Backend as Backend
from .copy import CopyReport as CopyReport
from .copy import copy_prefix as copy_prefix
from .keys import check_key as check_key
from .keys import check_prefix as check_prefix
from .keys import listing as listing
from .local import LocalBackend as LocalBackend
from .memory import MemoryBackend as MemoryBackend
from .object_store import ObjectStoreBackend as ObjectStoreBackend
from .protocol import BytesLike as BytesLike
from .protocol import FileBackend as FileBackend
from .protocol import PieceBackend as PieceBackend
from .protocol import SizedBackend as SizedBackend
from .protocol import StorageBackend as StorageBackend
from .recording import RecordingBackend as RecordingBackend
from .registry import get_available_backends as get_available_backends
from .registry import open_backend as open_backend
from .registry import register_backend as register_backend
from .values import as_buffer as as_buffer
from .values import get_size as get_size
from .values import join_url as join_url
from .values import put_file as put_file
from .values import put_pieces as put_pieces
from .zarr_store import as_zarr_store as as_zarr_store
