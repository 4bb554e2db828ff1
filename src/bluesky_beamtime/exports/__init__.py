"""Runs for other programs: NeXus, HDF5, tables, documents."""

from .content import Field as Field
from .content import RunContent as RunContent
from .content import StreamContent as StreamContent
from .files import ExportFiles as ExportFiles
from .format import ExportFormat as ExportFormat
from .takehome import TakenHome as TakenHome
from .takehome import take_home as take_home
