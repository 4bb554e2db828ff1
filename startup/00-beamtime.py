"""The RunEngine, the beamtime, and what is seen of a run while it goes on."""

# IPython gives get_ipython

import sys
import tomllib
from pathlib import Path

from bluesky import RunEngine
from bluesky.callbacks.best_effort import BestEffortCallback
from bluesky.utils import ProgressBarManager
from IPython import get_ipython

from bluesky_beamtime import Beamtime

ipython = get_ipython()
profile = Path(ipython.ipython_dir).resolve()
sys.path.insert(0, str(profile))  # devices/ and plans/ of this folder
settings = tomllib.loads((profile / "beamline.toml").read_text())

beamtime = Beamtime(profile / settings["path"])
# The sample of the last run is in the beam still, unless somebody says otherwise.
last = beamtime[-1].sample if len(beamtime) else None
beamtime.sample = last or settings["sample"]

RE = RunEngine(beamtime.md)  # its metadata are kept in the file
beamtime.attach(RE)  # records every run; scan numbers go on after a restart
beamtime.watch_subscribers(RE)  # so that %doctor can name those that are slow
RE.waiting_hook = ProgressBarManager()

bec = BestEffortCallback()
RE.subscribe(bec)
if settings["plots"]:
    ipython.run_line_magic("matplotlib", "")
else:
    bec.disable_plots()

ipython.run_line_magic("load_ext", "bluesky_beamtime")  # %runs %sample %note %doctor
