"""Powder rings on a flat detector, with the noise of counted photons."""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

LAB6_LATTICE = 4.156826
"""Lattice parameter of LaB6 in angstrom: certificate of NIST SRM 660c, at 22.5 °C."""

_LEVELS = 128
_BITS = 16
_SPARSE = 0.01


@dataclass(frozen=True)
class PowderRings:
    """Debye-Scherrer rings of a cubic powder, seen by a photon-counting detector.

    Bragg's law, ``wavelength = 2 d sin(theta)`` with ``d = a / sqrt(h² + k² + l²)``,
    gives each ring's radius ``distance * tan(2 theta)`` on a detector across the beam.
    Rings are weighted with their multiplicity and the Lorentz factor of a powder,
    ``1 / (sin²(theta) cos(theta))``; structure factors are left out.

    Every frame is a pure function of ``(seed, number, exposure, position)``. A pixel is
    Poisson distributed about :meth:`expected`, independently of all others and of other
    frames; its probabilities are rounded to multiples of 2⁻¹⁶.

    Parameters
    ----------
    shape
        ``(height, width)`` in pixels. The detector is ``size`` wide whatever the number
        of pixels, so that all shapes show the same rings.
    seed
        Seed of the noise.
    wavelength, lattice
        In angstrom.
    distance, size
        Of the detector from the sample, and its shorter edge; in millimetres.
    rate, background
        Photons per second and pixel on the brightest ring and beside the rings.
    sample_width
        Standard deviation of the sample's profile along each motor, in the motor's
        units: the intensity is largest where every position is 0.
    """

    shape: tuple[int, int] = (512, 512)
    seed: int = 0
    wavelength: float = 0.7293
    distance: float = 80.0
    size: float = 88.0
    lattice: float = LAB6_LATTICE
    rate: float = 5000.0
    background: float = 50.0
    sample_width: float = 1.0
    _noise: list[tuple[tuple[float, ...], NDArray[np.uint16]]] = field(
        default_factory=list[tuple[tuple[float, ...], NDArray[np.uint16]]],
        init=False,
        repr=False,
        compare=False,
    )

    def __post_init__(self) -> None:
        if len(self.shape) != 2 or min(self.shape) < 1:
            raise ValueError(
                f"the shape of a frame is (height, width), not {self.shape}"
            )

    # ------------------------------------------------------------------ geometry

    @cached_property
    def pixel(self) -> float:
        """Edge of a pixel in millimetres."""
        return self.size / min(self.shape)

    @cached_property
    def rings(self) -> list[tuple[float, float]]:
        """Radius in pixels and relative weight of each ring that meets the detector."""
        edge = math.hypot(*self.shape) / 2
        found: list[tuple[float, float]] = []
        for squares, multiplicity in _reflections(20):
            sine = self.wavelength * math.sqrt(squares) / (2 * self.lattice)
            if sine >= math.sin(math.pi / 4):
                break
            theta = math.asin(sine)
            radius = self.distance * math.tan(2 * theta) / self.pixel
            if radius > edge:
                break
            found.append((radius, multiplicity / (sine**2 * math.cos(theta))))
        return found

    @cached_property
    def _levels(self) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """Rates at which pixels are hit, and which of them each pixel has.

        Few enough rates that the noise of each can be tabulated.
        """
        height, width = self.shape
        y = np.arange(height)[:, None] - (height - 1) / 2
        x = np.arange(width)[None, :] - (width - 1) / 2
        radius = np.hypot(y, x)
        sharpness = max(1.0, min(self.shape) / 350)
        rings = np.zeros(self.shape)
        for centre, weight in self.rings:
            # The cone's photons spread over its circumference.
            peak = weight / max(centre, 1.0)
            rings += peak * np.exp(-(((radius - centre) / sharpness) ** 2) / 2)
        if rings.max() > 0:
            rings *= (self.rate - self.background) / rings.max()
        image = self.background + rings
        low, high = math.log(image.min()), math.log(image.max())
        steps = np.exp(low + (high - low) * np.arange(_LEVELS) / (_LEVELS - 1))
        edges = np.sqrt(steps[1:] * steps[:-1])
        return steps, np.searchsorted(edges, image).astype(np.int32)

    # -------------------------------------------------------------------- frames

    def brightness(self, position: Sequence[float] = ()) -> float:
        """Return how much of the beam meets the sample, from 0.02 to 1."""
        off = sum((p / self.sample_width) ** 2 for p in position)
        return 0.02 + 0.98 * math.exp(-off / 2)

    def expected(
        self, exposure: float, position: Sequence[float] = ()
    ) -> NDArray[np.float64]:
        """Return the mean number of photons in each pixel that does not saturate."""
        steps, level = self._levels
        return (steps * exposure * self.brightness(position))[level]

    def frame(
        self, number: int, exposure: float, position: Sequence[float] = ()
    ) -> NDArray[np.uint16]:
        """Return one frame; it saturates at 65535.

        Parameters
        ----------
        number
            Number of the frame, 0 or more.
        exposure
            In seconds.
        position
            Of the sample's motors.
        """
        setting = (float(exposure), *map(float, position))
        bits = struct.unpack(
            f"<{len(setting)}Q", struct.pack(f"<{len(setting)}d", *setting)
        )
        entropy = np.random.SeedSequence([self.seed, number, *bits])
        random = np.random.Generator(np.random.SFC64(entropy))
        steps, level = self._levels
        means = steps * exposure * self.brightness(position)
        if means[0] < _SPARSE:
            # So few photons that 2⁻¹⁶ is too coarse; numpy is quick at this end.
            counts = random.poisson(means[level])
            return np.minimum(counts, 0xFFFF).astype(np.uint16)
        table = self._table(setting, means)
        draws = random.integers(0, 1 << _BITS, self.shape, dtype=np.uint16)
        return np.take(table, (level << _BITS) + draws)

    def _table(
        self, setting: tuple[float, ...], means: NDArray[np.float64]
    ) -> NDArray[np.uint16]:
        """Return the photon count for each level and each 16 random bits."""
        # One entry, replaced as a whole: frames of one setting follow each other.
        if self._noise and self._noise[0][0] == setting:
            return self._noise[0][1]
        table = np.empty((len(means), 1 << _BITS), np.uint16)
        for row, mean in zip(table, means, strict=True):
            row[:] = poisson_quantiles(float(mean), _BITS)
        flat = table.reshape(-1)
        self._noise[:] = [(setting, flat)]
        return flat


def poisson_quantiles(mean: float, bits: int) -> NDArray[Any]:
    """Return the Poisson distribution as a sorted sample of ``2**bits`` counts.

    Drawing from it uniformly draws from the distribution, with probabilities rounded to
    multiples of ``2**-bits``.
    """
    spread = 8 * math.sqrt(mean) + 12
    mode = math.floor(mean)
    low, high = max(0, math.floor(mean - spread)), math.ceil(mean + spread)
    counts = np.arange(low, high + 1)
    # p(k) / p(k - 1) = mean / k, summed outwards from the mode to avoid underflow.
    steps = np.log(mean / np.maximum(counts, 1))
    logs = np.cumsum(steps)
    logs -= logs[mode - low]
    share = np.exp(logs)
    share /= share.sum()
    limits = np.rint(np.cumsum(share) * (1 << bits)).astype(np.int64)
    repeats = np.diff(limits, prepend=0)
    return np.minimum(np.repeat(counts, repeats), 0xFFFF)


def _reflections(limit: int) -> list[tuple[int, int]]:
    """Return ``h² + k² + l²`` and multiplicity of a primitive cubic lattice's lines."""
    span = range(-math.isqrt(limit), math.isqrt(limit) + 1)
    found: dict[int, int] = {}
    for h, k, l in itertools.product(span, span, span):  # noqa: E741  # Miller indices
        squares = h * h + k * k + l * l
        if 0 < squares <= limit:
            found[squares] = found.get(squares, 0) + 1
    return sorted(found.items())
