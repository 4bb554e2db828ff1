"""The record of runs: its tables, writing and reading them."""

from .accounting import Account as Account
from .decoding import decode as decode
from .documents import NamedDocument as NamedDocument
from .encoding import encode as encode
from .engine import Database as Database
from .integrity import VerifyReport as VerifyReport
from .integrity import verify as verify
from .journaled import JournalIndex as JournalIndex
from .migrating import Migration as Migration
from .migrating import migrate as migrate
from .notes import Note as Note
from .people import Person as Person
from .problems import Problem as Problem
from .run_writer import RunWriter as RunWriter
from .runs import Run as Run
from .sample_book import Sample as Sample
from .sample_book import Samples as Samples
from .samples import SampleChange as SampleChange
from .samples import SampleMetadata as SampleMetadata
from .scan_ids import reserve_scan_id as reserve_scan_id
from .search import Runs as Runs
from .streams import Stream as Stream
