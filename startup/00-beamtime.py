"""The RunEngine, the beamtime, and what is seen of a run while it goes on."""

import logging
import sys
import tomllib
import warnings
from contextlib import contextmanager
from pathlib import Path

from bluesky import RunEngine
from bluesky.callbacks.best_effort import BestEffortCallback
from bluesky.utils import ProgressBarManager, RunEngineInterrupted
from IPython import get_ipython
from IPython.core.error import UsageError

from bluesky_beamtime import Beamtime, BeamtimeError

ipython = get_ipython()
profile = Path(ipython.ipython_dir).resolve()
sys.path.insert(0, str(profile))  # devices/ and plans/ of this folder
settings = tomllib.loads((profile / "beamline.toml").read_text())


@contextmanager
def in_one_line():
    """Say what is wrong at the start in one line; the rest does not start then."""
    try:
        yield
    except BeamtimeError as error:
        raise UsageError(str(error)) from None


with in_one_line():
    beamtime = Beamtime(profile / settings["path"])
# The sample of the last run is in the beam still, unless somebody says otherwise.
last = beamtime[-1].sample if len(beamtime) else None
beamtime.sample = last or settings["sample"]

RE = RunEngine(beamtime.md)  # its metadata are kept in the file
beamtime.attach(RE)  # records every run; scan numbers go on after a restart
beamtime.watch_subscribers(RE)  # so that %doctor can name those that are slow
RE.waiting_hook = ProgressBarManager()


def leave_it_to_ipython(record):
    """Why a run ended is raised, and shown once, not logged as well."""
    if record.getMessage() == "Run aborted":
        record.exc_info = None
    return True


logging.getLogger("bluesky").addFilter(leave_it_to_ipython)


def say_what_next(shell, kind, error, trace, tb_offset=None):
    """Say after a pause what can be typed, and not where in bluesky it came from."""
    print(str(error).strip())


ipython.set_custom_exc((RunEngineInterrupted,), say_what_next)

# A line for each event, without the frames: nobody needs to be told that.
warnings.filterwarnings("ignore", message="The key .* LiveTable does not know how")
bec = BestEffortCallback()
RE.subscribe(bec)
beamtime.attach(RE)  # once more: its line about a run comes after the table
if settings["plots"]:
    ipython.run_line_magic("matplotlib", "")
else:
    bec.disable_plots()

ipython.run_line_magic("load_ext", "bluesky_beamtime")  # %runs %sample %note %doctor
