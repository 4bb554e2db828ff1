"""Beamtimes on a PostgreSQL server: following a file to one, and reading from one."""

from .following import Following as Following
from .frames import FrameProgress as FrameProgress
from .local_server import PostgresTestServer as PostgresTestServer
from .opening import OpenedServer as OpenedServer
from .opening import open_server as open_server
from .replicator import ReplicaProgress as ReplicaProgress
from .replicator import Replicator as Replicator
from .server import Server as Server
from .server import is_server_url as is_server_url
from .server_database import ServerDatabase as ServerDatabase
from .spool import spool_path as spool_path
