"""Archive a beamtime, archive it again, prove it, and bring it back."""

# [prepare]
from pathlib import Path

from bluesky import RunEngine
from bluesky import plans as bp
from ophyd_async.core import init_devices

from bluesky_beamtime import Beamtime
from bluesky_beamtime.devices import SimCamera
from bluesky_beamtime.exports import archive, prove, restore

Path("data").mkdir()


def measure() -> None:
    """Take three frames."""
    with Beamtime("data/2026-11-LaB6.db", sample="LaB6") as beamtime:
        RE = RunEngine()
        beamtime.attach(RE, report=False)
        with init_devices():
            cam1 = SimCamera(beamtime.frames)
        RE(bp.count([cam1], 3))


measure()
# [archive]
report = archive("data/2026-11-LaB6.db", "archive/2026-11-LaB6")
print("everything was sent:", report.sent == report.files)
report = archive("data/2026-11-LaB6.db", "archive/2026-11-LaB6")
print("nothing to do:", report.up_to_date)
measure()
report = archive("data/2026-11-LaB6.db", "archive/2026-11-LaB6")
print("only what is new was sent:", 0 < report.sent < report.files)
# what is there is proven, without the beamtime
proof = prove("archive/2026-11-LaB6")
print(proof.beamtime, proof.runs, "runs, all there and right:", proof.ok)
shard = next(Path("archive/2026-11-LaB6").rglob("cam1/c.0.0.0"))
data = bytearray(shard.read_bytes())
data[-1] ^= 1
shard.write_bytes(data)
damaged = prove("archive/2026-11-LaB6").differs
print("one bit was changed in:", [Path(name).name for name in damaged])
archive("data/2026-11-LaB6.db", "archive/2026-11-LaB6", thorough=True)
# and brought back
back = restore("archive/2026-11-LaB6", "back")
with Beamtime(back.path, mode="r") as beamtime:
    print(beamtime[-1].primary.read()["cam1"].shape, beamtime.verify().ok)
# [end]
