"""Lengths in the units that image files use."""

from __future__ import annotations

_MICROMETRES = {
    "angstrom": 1e-4, "å": 1e-4,
    "nm": 1e-3, "nanometer": 1e-3, "nanometre": 1e-3,
    "um": 1.0, "µm": 1.0, "μm": 1.0, "micrometer": 1.0, "micrometre": 1.0, "micron": 1.0, "microns": 1.0,
    "mm": 1e3, "millimeter": 1e3, "millimetre": 1e3,
    "cm": 1e4, "centimeter": 1e4, "centimetre": 1e4,
    "in": 25400.0, "inch": 25400.0,
    "m": 1e6, "meter": 1e6, "metre": 1e6,
}  # fmt: skip


def micrometres(value: float, unit: str | None) -> float | None:
    """Return a length in micrometres, or None when the unit is missing or not one of length."""
    factor = _MICROMETRES.get(unit.strip().lower()) if unit else None
    return None if factor is None else value * factor
