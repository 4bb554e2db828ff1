"""Documents into the database."""

from bluesky_beamtime.database.run_recorder import RunRecorder as RunRecorder

from .companions import help_tiled_writer as help_tiled_writer
from .importing import ImportReport as ImportReport
from .ingesting import DocumentSource as DocumentSource
from .ingesting import Ingest as Ingest
from .ingesting import IngestedRun as IngestedRun
from .ingesting import IngestReport as IngestReport
from .ingesting import Message as Message
from .interrupted import InterruptedRun as InterruptedRun
from .interrupted import acquisition_name as acquisition_name
from .interrupted import label_interrupted as label_interrupted
from .journal import Journal as Journal
from .recorder import DocumentRecorder as DocumentRecorder
from .recovery import RecoveryReport as RecoveryReport
from .recovery import recover as recover
from .scan_subscriber import ScanSubscriber as ScanSubscriber
from .subscribers import SubscriberWatch as SubscriberWatch
