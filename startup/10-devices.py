"""The devices, each under its name; ``devices/beamline.py`` says what there is."""

from devices.beamline import make_devices

with in_one_line():
    bl = make_devices(
        beamtime.frames,
        beamtime.path_provider,
        devices=settings["devices"],
        prefix=settings["prefix"],
        folder=profile,
    )
globals().update(bl.by_name)
