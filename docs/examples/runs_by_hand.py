"""Runs without Bluesky, and one search over several beamtimes."""

# [write]
import numpy as np

from bluesky_beamtime import (
    Beamtime,
    Index,
    IndexWriter,
    RunWriter,
    SampleMetadata,
)

sample = SampleMetadata("LaB6", formula="LaB₆")
with RunWriter("2026-11-LaB6.db", sample) as writer:
    writer.open_run("alignment", metadata={"operator": "Ada"})
    writer.open_stream("primary", {"x": {"units": "mm"}, "counts": {}})
    for x in (0.0, 0.5, 1.0):
        event = writer.write_event({"x": x, "counts": int(100 * x)})
        writer.write_image(event, "camera", np.full((4, 6), x))
    writer.close_run()

# [streams]
with RunWriter("2026-11-LaB6.db", "CeO2") as writer:
    writer.open_run("alignment")
    writer.open_stream("baseline", {"temperature": {"units": "K"}})
    writer.open_stream("primary", {"x": {"units": "mm"}})
    writer.write_event({"temperature": 295.0}, stream="baseline")
    writer.write_event({"x": 0.25})
    writer.close_run(exit_status="abort", reason="the shutter was closed")

# [read]
with Beamtime("2026-11-LaB6.db", mode="r") as beamtime:
    run = beamtime[1]
    print(run.plan_name, run.sample.name, run.exit_status)
    data = run.primary.read()
    print(data["counts"].values, data["camera"].shape, data["x"].attrs["units"])

# [index]
researcher = IndexWriter("beamtimes.index").register_researcher(
    "Ada", ".", orcid="0000-0002-1825-0097"
)
index = Index("beamtimes.index")
index.refresh(".", researcher=researcher)
for row in index.search(researcher="Ada", sample="CeO2"):
    print(row.beamtime, row.scan_id, row.exit_status, row.available)
    print(row.open().baseline.read()["temperature"].values)
