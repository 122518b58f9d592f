"""Single values and rows that cannot be, with a reason in words."""

from __future__ import annotations

import math

from bike_pipeline import features

# What air is between, by unit: colder, wetter or windier is no reading.
SENSIBLE = {"°C": (-25.0, 45.0), "%": (0.0, 100.0), "km/h": (0.0, 100.0)}


def range_reason(name: str, value: float) -> str:
    """Return why a value cannot be one of a feature, in words, with the unit that it seems to be in."""
    feature = features.BY_NAME[name]
    if math.isnan(value):
        return f"{name} is no number"
    if name == "weathersit":
        return f"weathersit {value:g} is no weather that there is ({', '.join(map(str, features.WEATHER))})"
    allowed = f"{name} {value:g} is not from {feature.minimum:g}"
    allowed += f" to {feature.maximum:g}" if feature.maximum is not None else ""
    if name not in features.PHYSICAL:
        return allowed
    seems = looks_like(name, value)
    return f"{allowed}; {seems}" if seems else allowed


def looks_like(name: str, value: float) -> str:
    """Return what a stored value seems to be instead, such as "1.6 would be 67 °C; looks like Fahrenheit"."""
    scale, offset, unit = features.PHYSICAL[name]
    read = value * scale + offset
    low, high = SENSIBLE[unit]
    if low <= read <= high:
        return ""
    if unit == "°C" and low <= (read - 32.0) / 1.8 <= high:
        return f"{value:g} would be {read:.0f} °C; looks like Fahrenheit"
    if low <= value <= high:
        return f"{value:g} would be {read:.0f} {unit}; looks like {unit} that nobody scaled"
    return f"it would be {read:.0f} {unit}"
