"""Powder rings where Bragg puts them, with the noise of photons."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bluesky_beamtime.devices.rings import (
    LAB6_LATTICE,
    PowderRings,
    poisson_quantiles,
)


def poisson_pmf(mean: float, count: int) -> float:
    return math.exp(count * math.log(mean) - mean - math.lgamma(count + 1))


def test_rings_stand_where_bragg_puts_them() -> None:
    rings = PowderRings((512, 512))
    image = rings.expected(1.0)
    row = image[255, 256:]
    for squares in (1, 2, 3, 4, 5, 6):
        d = LAB6_LATTICE / math.sqrt(squares)
        two_theta = 2 * math.asin(rings.wavelength / (2 * d))
        radius = rings.distance * math.tan(two_theta) / (rings.size / 512)
        near = row[int(radius) - 5 : int(radius) + 6]
        assert abs(int(radius) - 5 + int(near.argmax()) + 0.5 - radius) <= 1
        assert near.max() > 5 * rings.background


def test_all_shapes_show_the_same_rings() -> None:
    small, large = PowderRings((100, 140)), PowderRings((400, 560))
    ratios = [b[0] / a[0] for a, b in zip(small.rings, large.rings, strict=False)]
    assert ratios == pytest.approx([4.0] * len(ratios))
    assert small.expected(0.1).shape == (100, 140)


def test_a_seven_is_no_sum_of_three_squares() -> None:
    # 1, 2, 3, 4, 5, 6, 8: the missing line of a primitive lattice.
    radii = [radius for radius, _ in PowderRings().rings]
    d7 = LAB6_LATTICE / math.sqrt(7)
    missing = 80 * math.tan(2 * math.asin(0.7293 / (2 * d7))) / (88 / 512)
    assert min(abs(radius - missing) for radius in radii) > 5


def test_a_frame_depends_on_its_arguments_and_nothing_else() -> None:
    one, other = PowderRings((30, 40), seed=1), PowderRings((30, 40), seed=1)
    frame = one.frame(5, 0.1, (0.5,))
    # Other frames before it change nothing.
    for number in (3, 9):
        other.frame(number, 0.2)
    np.testing.assert_array_equal(other.frame(5, 0.1, (0.5,)), frame)
    for changed in (
        one.frame(6, 0.1, (0.5,)),
        one.frame(5, 0.2, (0.5,)),
        one.frame(5, 0.1, (0.4,)),
        PowderRings((30, 40), seed=2).frame(5, 0.1, (0.5,)),
    ):
        assert (changed != frame).any()
    assert frame.dtype == np.uint16
    assert frame.shape == (30, 40)


@pytest.mark.parametrize("exposure", [1e-5, 1e-3, 0.1, 1.0])
def test_mean_and_variance_are_those_of_photons(exposure: float) -> None:
    rings = PowderRings((64, 64), seed=4)
    count = 300
    frames = np.stack([rings.frame(n, exposure) for n in range(count)]).astype(float)
    expected = rings.expected(exposure)
    photons = expected.sum() * count
    # Five standard deviations of what a Poisson process would give.
    assert abs(frames.sum() - photons) < 5 * math.sqrt(photons) + 2e-4 * photons
    pixels = expected.size
    variance = frames.var(axis=0, ddof=1)
    ratio = variance.sum() / expected.sum()
    spread = math.sqrt(((expected + 2 * expected**2) / count).sum()) / expected.sum()
    assert abs(ratio - 1) < 5 * spread + 1e-3
    # Each pixel on its own, too: chi squared with a degree of freedom per pixel.
    chi2 = ((frames.mean(axis=0) - expected) ** 2 / (expected / count)).sum()
    # Where photons are rare the distribution is wide: its own variance decides.
    width = math.sqrt((2 + 1 / (count * expected)).sum())
    assert abs(chi2 - pixels) < 5 * width + 0.01 * pixels


def test_neighbours_and_frames_are_independent() -> None:
    rings = PowderRings((128, 128), seed=5)
    expected = rings.expected(0.1)
    first, second = (
        (rings.frame(n, 0.1) - expected) / np.sqrt(expected) for n in (0, 1)
    )
    pixels = first.size
    for pair in (
        (first, second),
        (first[:, 1:], first[:, :-1]),
        (first[1:], first[:-1]),
    ):
        correlation = float((pair[0] * pair[1]).mean())
        assert abs(correlation) < 5 / math.sqrt(pixels)


@pytest.mark.parametrize("mean", [0.01, 0.3, 1.0, 4.7, 60.0, 3000.0])
def test_quantiles_are_the_poisson_distribution(mean: float) -> None:
    sample = poisson_quantiles(mean, 16)
    assert len(sample) == 1 << 16
    assert (np.diff(sample) >= 0).all()
    counts = np.bincount(sample)
    for count in range(
        max(0, int(mean - 3 * mean**0.5)), int(mean + 3 * mean**0.5) + 2
    ):
        share = counts[count] / len(sample) if count < len(counts) else 0.0
        assert abs(share - poisson_pmf(mean, count)) <= 2**-16
    assert sample.mean() == pytest.approx(mean, rel=1e-3)
    assert sample.var() == pytest.approx(mean, rel=3e-3)


def test_it_saturates() -> None:
    rings = PowderRings((20, 20))
    assert rings.frame(0, 1e4).min() == 0xFFFF


def test_brightness_falls_off_with_distance() -> None:
    rings = PowderRings(sample_width=2.0)
    assert rings.brightness() == rings.brightness((0.0, 0.0)) == 1.0
    assert rings.brightness((2.0,)) == pytest.approx(0.02 + 0.98 * math.exp(-0.5))
    assert rings.brightness((1e9,)) == 0.02
    two = rings.brightness((1.0, -1.0))
    assert two < rings.brightness((1.0,)) == rings.brightness((-1.0,))


@pytest.mark.parametrize("shape", [(0, 3), (3,), (2, 2, 2)])
def test_shapes_are_checked(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="height, width"):
        PowderRings(shape)  # type: ignore[arg-type]
