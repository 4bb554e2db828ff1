"""Runs for other programs: NeXus, HDF5, tables, documents."""

from .archive import archive as archive
from .archive_report import ArchiveReport as ArchiveReport
from .content import RunContent as RunContent
from .fields import Field as Field
from .fields import StreamContent as StreamContent
from .files import ExportFiles as ExportFiles
from .format import ExportFormat as ExportFormat
from .proving import Proof as Proof
from .proving import prove as prove
from .restoring import RestoreReport as RestoreReport
from .restoring import restore as restore
from .takehome import TakenHome as TakenHome
from .takehome import take_home as take_home
