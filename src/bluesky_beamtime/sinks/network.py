"""Which disks are on a network, where SQLite's write-ahead log is not safe."""

from __future__ import annotations

from pathlib import Path

_NETWORK = frozenset(
    (
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "fuse.ceph",
        "fuse.glusterfs",
        "fuse.s3fs",
        "fuse.sshfs",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "orangefs",
        "pvfs2",
        "smb3",
        "smbfs",
    )
)


def is_network_disk(path: Path, mounts: Path = Path("/proc/mounts")) -> bool:
    """Return whether a path lies on a network disk; False where nothing tells."""
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return False
    path = path.absolute().resolve()
    best, found = -1, False
    for line in lines:
        fields = line.split()
        if len(fields) < 3:
            continue
        place = Path(fields[1].replace("\\040", " "))
        if path.is_relative_to(place) and len(place.parts) >= best:
            best, found = len(place.parts), fields[2] in _NETWORK
    return found
