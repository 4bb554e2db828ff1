"""OME-NGFF metadata, so that imaging programs know a store's axes and scale.

References
----------
OME-NGFF 0.5, "multiscales" (https://ngff.openmicroscopy.org/0.5/).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

VERSION = "0.5"
_SPATIAL = ("z", "y", "x")


def multiscale(
    name: str, ndim: int, scale: Sequence[float] | None, unit: str | None
) -> dict[str, Any]:
    """Return the ``multiscales`` entry of one array of frames.

    Parameters
    ----------
    name
        Path of the array in its group.
    ndim
        Dimensions of a frame, 2 or 3.
    scale
        Size of a pixel along each of them; 1 by default.
    unit
        Unit of that size, such as ``"micrometer"``.

    Raises
    ------
    ValueError
        OME-NGFF has no images of this rank, or the scale does not fit.
    """
    if ndim not in (2, 3):
        raise ValueError(
            f"source {name!r}: OME-NGFF describes frames of 2 or 3 dimensions, "
            f"not {ndim}"
        )
    sizes = [1.0] * ndim if scale is None else [float(size) for size in scale]
    if len(sizes) != ndim:
        raise ValueError(f"source {name!r}: {len(sizes)} scales for {ndim} dimensions")
    space: dict[str, str] = {"type": "space"} | ({} if unit is None else {"unit": unit})
    axes = [{"name": "t", "type": "time"}]
    axes += [{"name": axis, **space} for axis in _SPATIAL[-ndim:]]
    transform = {"type": "scale", "scale": [1.0, *sizes]}
    return {
        "name": name,
        "axes": axes,
        "datasets": [{"path": name, "coordinateTransformations": [transform]}],
    }


def with_multiscale(
    attributes: Mapping[str, Any], entry: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a group's ``ome`` attribute with one more image."""
    ome = attributes.get("ome", {})
    others = [m for m in ome.get("multiscales", []) if m.get("name") != entry["name"]]
    return {"ome": {"version": VERSION, "multiscales": [*others, dict(entry)]}}
