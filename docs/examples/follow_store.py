"""A store that is being written, followed by a copy, read through zarr-python."""

# [write]
from pathlib import Path

import numpy as np
import zarr

from bluesky_beamtime.storage import ZarrWriter
from bluesky_beamtime.storage.backends import as_zarr_store, open_backend
from bluesky_beamtime.storage.uploader import StoreUploader

writer = ZarrWriter.get("demo", frames_per_shard=4)
writer.set_uri(str(Path("scan_00214").absolute()))
camera = writer.prepare("cam1", "cam1", np.dtype("u2"), (512, 512))
writer.kickoff()

# With a bucket: open_backend("s3://beamline/2026", endpoint="https://s3.example")
backend = open_backend("memory://beamline/2026")
with StoreUploader(writer.uri, backend, "scan_00214") as uploader:
    for number in range(10):
        camera.write(np.full((512, 512), number, "u2"))
    camera.close()
# [read]
print(list(backend.list_prefix("scan_00214/cam1")))

group = zarr.open_group(as_zarr_store(backend), path="scan_00214", mode="r")
frames = group["cam1"]
print(frames.shape, frames[7].max(), uploader.progress.frames_behind)
