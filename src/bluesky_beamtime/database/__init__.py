"""The record of runs: its tables, writing and reading them."""

from .accounting import Account as Account
from .decoding import decode as decode
from .documents import NamedDocument as NamedDocument
from .encoding import encode as encode
from .engine import Database as Database
from .journaled import JournalIndex as JournalIndex
from .runs import Run as Run
from .samples import SampleMetadata as SampleMetadata
from .scan_ids import reserve_scan_id as reserve_scan_id
from .search import Runs as Runs
from .streams import Stream as Stream
