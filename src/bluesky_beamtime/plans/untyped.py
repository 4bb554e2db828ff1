"""Bluesky's own plans, whose annotations leave much unsaid.

Calling them through ``Any`` keeps a strict type checker of our plans useful: what it
reports is then ours.
"""

from __future__ import annotations

from typing import Any

from bluesky import plan_stubs, plans, preprocessors, utils

bps: Any = plan_stubs
bp: Any = plans
bpp: Any = preprocessors
bu: Any = utils
