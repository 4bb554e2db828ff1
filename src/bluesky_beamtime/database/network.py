"""Whether a file lies on a disk of another machine, where SQLite's log cannot be used.

The write-ahead log needs memory that all processes share, which two machines have not:
on a network file system the file could be damaged. There a rollback journal is used
instead: every commit is fsynced and takes milliseconds, and readers wait for it.
"""

from __future__ import annotations

import re
from pathlib import Path

_MOUNTS = Path("/proc/self/mounts")
_NETWORK = re.compile(
    r"nfs4?|cifs|smb[23]?(fs)?|afs|9p|ceph|glusterfs|lustre|gpfs|beegfs|pvfs2|orangefs"
    r"|panfs|ocfs2|gfs2?|weka(fs)?|davfs2?|fuse\.(sshfs|s3fs|rclone|glusterfs|ceph.*"
    r"|davfs2?|cvmfs2?|smbnetfs|juicefs|goofys|gcsfuse|mount-s3)"
)


def file_system_of(path: Path) -> str:
    """Return the type of the file system that a path is on, empty if nobody knows.

    Parameters
    ----------
    path
        A file that may not be there yet, in a folder that is.
    """
    try:
        lines = _MOUNTS.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    place = path.parent.resolve()
    best, found = -1, ""
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        mount = Path(re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields[1]))
        # The last of several on one another is the one that is seen.
        if place.is_relative_to(mount) and len(mount.parts) >= best:
            best, found = len(mount.parts), fields[2]
    return found


def is_on_network(path: Path) -> bool:
    """Say whether other machines may use the file at the same time."""
    return _NETWORK.fullmatch(file_system_of(path).lower()) is not None


def journal_mode_for(path: Path) -> str:
    """Return the journal mode of SQLite that is safe where the file is."""
    return "truncate" if is_on_network(path) else "wal"
