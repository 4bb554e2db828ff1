"""Find runs, and say who measured what."""

# [prepare]
from bluesky import RunEngine
from bluesky import plans as bp
from ophyd_async.core import init_devices

from bluesky_beamtime import Beamtime, Person
from bluesky_beamtime.demo import SimMotor
from bluesky_beamtime.devices import SimCounter

RE = RunEngine()
beamtime = Beamtime("2026-11-LaB6.db")
beamtime.attach(RE, report=False)
with init_devices():
    x = SimMotor()
    diode = SimCounter(x)


def show(what, runs):
    """Print the numbers of runs."""
    print(f"{what}:", *[run.scan_id for run in runs])


# [people]
beamtime.proposal = "cm40123-2"
beamtime.users = [Person("Ada Lovelace", orcid="0000-0002-1825-0097"), "Bob"]
beamtime.sample = {"name": "LaB6", "formula": "LaB6", "serial": "NIST 660c"}
RE(bp.count([diode], 2), operator="Zoë", optics={"energy": 12.0, "mirror": "Rh"})
RE(bp.scan([diode], x, 0, 1, 3), operator="Eve", optics={"energy": 7.1})
beamtime.sample = "Si"
RE(bp.scan([diode], x, 0, 1, 2), tags=["calibration"])
# [search]
show("plan", beamtime.search(plan_name="scan"))
show("sample", beamtime.search(sample="LaB6"))
show("time", beamtime.search(since="2020-01-01", until="2100-01-01"))
show("text", beamtime.search(text="660C"))
show("nested", beamtime.search(**{"optics.energy": 7.1}))
show("user", beamtime.search(user="0000-0002-1825-0097", plan_name="count"))
show("tags", beamtime.search(tags="calibration", proposal="cm40123-2"))
# [order]
found = beamtime.search(user="Bob")
show("sorted", found.sorted_by("-optics.energy"))
show("page", found.sorted_by("scan_id").limit(2, skip=1))
print(len(found), "runs, the newest is", found[0].scan_id)
# [distinct]
print(beamtime.distinct("plan_name"))
print(found.distinct("optics.energy"))
# [sql]
query = """
    SELECT sample, count(*) AS runs, sum(num_events) AS points
    FROM run_list WHERE exit_status = ? GROUP BY sample ORDER BY sample
"""
print(beamtime.sql(query, ["success"]).to_string(index=False))
# [history]
beamtime.sample = {"name": "LaB6", "serial": "NIST 660d"}
print([change.sample.serial for change in beamtime.samples["LaB6"].history])
print(beamtime[1].sample.serial, [str(p.name) for p in beamtime[1].people])
beamtime.note("new capillary after scan 3", author="Ada Lovelace")
# [close]
beamtime.close()
