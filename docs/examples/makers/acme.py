"""Stands for the software of a camera's maker, with the habits that such software has.

Images come in a thread of its own, through a callback, as views of memory that is
overwritten as soon as the callback returns. They carry the camera's own number and the
time of its own clock. ``stop`` blocks until the callback has returned. What goes wrong
in the thread is told to a second callback. Features are set by name, in the maker's
units.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

READOUT_US = 1000.0


LIMITS = {
    "ExposureTime": (20.0, 10_000_000.0),  # µs
    "Gain": (0.0, 24.0),  # dB
    "FrameDelay": (READOUT_US, 10_000_000.0),  # µs between exposures
    "Width": (8, 64),
    "Height": (8, 48),
}


class AcmeError(Exception):
    """What this maker's software raises."""


@dataclass
class AcmeImage:
    pixels: np.ndarray
    frame_id: int
    time_ns: int


class AcmeCamera:
    """A camera whose nth image is n everywhere, plus its gain in the first column."""

    TRIGGERS = ("Internal", "RisingEdge", "PulseWidth")

    def __init__(self):
        self.features = {
            "ExposureTime": 10_000.0,
            "Gain": 0.0,
            "FrameDelay": READOUT_US,
            "Width": 64,
            "Height": 48,
            "Trigger": "Internal",
        }
        self.frame_id = 0
        self._ring: list[np.ndarray] = []
        self._pulses: queue.SimpleQueue[float] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    # ------------------------------------------------------------------ features

    def get(self, feature: str):
        return self.features[feature]

    def set(self, feature: str, value) -> None:
        if self.running:
            raise AcmeError(f"ACME-16: {feature} is locked while images are taken")
        if feature == "Trigger" and value not in self.TRIGGERS:
            raise AcmeError(f"ACME-22: no trigger {value!r}")
        low, high = LIMITS.get(feature, (None, None))
        if low is not None and not low <= value <= high:
            raise AcmeError(f"ACME-34: {feature} is from {low} to {high}, not {value}")
        self.features[feature] = value

    # --------------------------------------------------------------- acquisition

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(
        self,
        number: int,
        on_image: Callable[[AcmeImage], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        """Take so many images, or without an end if it is 0."""
        if self.running:
            raise AcmeError("ACME-07: images are being taken")
        shape = self.features["Height"], self.features["Width"]
        self._ring = [np.empty(shape, np.uint16) for _ in range(2)]
        self._pulses = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._run,
            args=(number, on_image, on_error),
            name="acme",
            daemon=True,
        )
        self._thread.start()

    def stop(self) -> None:
        """Take no more images; blocks until the callback has returned."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def pulse(self, width: float = 0.0) -> None:
        """What arrives at the camera's input: a pulse so many seconds long."""
        self._pulses.put(width)

    # ----------------------------------------------------------------- the thread

    def _run(self, number, on_image, on_error) -> None:
        taken = 0
        while not self._stopping.is_set() and (number == 0 or taken < number):
            try:
                if not self._expose():
                    continue
                taken += 1
                for image in self._images():
                    on_image(image)
                    image.pixels[...] = 0xDEAD  # the next image is on its way already
            except Exception as error:
                on_error(error)
                return

    def _expose(self) -> bool:
        """Wait for the end of an exposure; False if there was none."""
        exposure = self.features["ExposureTime"] / 1e6
        if self.features["Trigger"] == "Internal":
            delay = self.features["FrameDelay"] / 1e6
            return not self._stopping.wait(exposure + delay)
        try:
            width = self._pulses.get(timeout=0.01)
        except queue.Empty:
            return False
        level = self.features["Trigger"] == "PulseWidth"
        return not self._stopping.wait(width if level else exposure)

    def _images(self) -> Iterable[AcmeImage]:
        """Return what one exposure gives."""
        self.frame_id += 1
        pixels = self._ring[self.frame_id % len(self._ring)]
        pixels[...] = self.frame_id
        pixels[:, 0] += int(self.features["Gain"])
        return [AcmeImage(pixels, self.frame_id, time.time_ns())]
