"""Readings and blocks to tables and files."""

from .base import BlockSink as BlockSink
from .base import RawBlockSink as RawBlockSink
from .base import ReadingSink as ReadingSink
from .block_rows import block_to_rows as block_to_rows
from .block_rows import block_to_samples as block_to_samples
from .block_rows import block_to_summary as block_to_summary
from .csv import CsvSink as CsvSink
from .from_documents import DocumentRecords as DocumentRecords
from .jsonl import JsonlSink as JsonlSink
from .memory import InMemorySink as InMemorySink
from .parquet import ParquetSink as ParquetSink
from .pipes import pipe as pipe
from .pipes import pipe_blocks as pipe_blocks
from .postgres import PostgresSink as PostgresSink
from .postgres_config import PostgresConfig as PostgresConfig
from .raw_counts import RAW_FORMAT_VERSION as RAW_FORMAT_VERSION
from .raw_counts import RawCountsSink as RawCountsSink
from .raw_reader import RawFileHeader as RawFileHeader
from .raw_reader import iter_blocks as iter_blocks
from .raw_reader import read_file_header as read_file_header
from .records import DaqBlock as DaqBlock
from .records import DaqReading as DaqReading
from .records import DaqSample as DaqSample
from .rows import reading_to_row as reading_to_row
from .sqlite import SqliteSink as SqliteSink
from .subscriber import SinkSubscriber as SinkSubscriber
