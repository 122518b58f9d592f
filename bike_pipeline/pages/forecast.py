"""The page on which people ask a server for forecasts: three files of the server itself, or one file for a device.

Its script asks the REST API that every client asks. What it knows of inputs, ranges and units is the feature contract,
written into it; nothing on it comes from another host, and its Content-Security-Policy allows nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Any

from bike_pipeline import features
from bike_pipeline.pages import render

TITLE = "Bike demand"
# Styles and scripts are files of the same server; nobody may put the page into a frame.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'"
)
# Of each weather input: what a person reads, what stands for it if it is left out, and what the form begins with.
_FIELDS: dict[str, tuple[str, str, float | None]] = {
    "temp": ("Temperature", "", 20.0),
    "atemp": ("Feels like", "temp", None),
    "hum": ("Humidity", "", 60.0),
    "windspeed": ("Wind", "", 10.0),
}


def files(model: str) -> dict[str, tuple[str, bytes]]:
    """Return the page of a server as files by name, "" for the page itself, each with its content type."""
    page = render("forecast.html", title=TITLE, single=False, about=_about(model, ""))
    return {
        "": ("text/html", page.encode()),
        "style.css": ("text/css", _style().encode()),
        "page.js": ("text/javascript", _text("forecast.js").encode()),
    }


def single_file(model: str, server: str) -> str:
    """Return the page as one file that asks a server, the one that hands it out if its address is empty.

    Its policy names style and script by their hashes, so that nothing else in it runs.
    """
    style, script, asked = _style(), _text("forecast.js"), server or "'self'"
    policy = (
        f"default-src 'none'; script-src '{_hash_of(script)}'; style-src '{_hash_of(style)}'; "
        f"connect-src {asked}; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )
    about = _about(model, server)
    return render("forecast.html", title=TITLE, single=True, about=about, policy=policy, style=style, script=script)


def _hash_of(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"


def _about(model: str, server: str) -> dict[str, Any]:
    """Return what the script has to know: where it asks whom, and the feature contract."""
    return {
        "model": model,
        "server": server,
        "first_year": features.FIRST_YEAR,
        "most_years": features.MOST_YEARS,
        "weather": features.WEATHER,
        "fields": {name: _field(name) for name in _FIELDS},
        "defaults": {feature.name: feature.default for feature in features.OPTIONAL_INPUTS},
        "signatures": [features.SERVING_INTERVALS, features.SERVING_ALL_INPUTS, features.SERVING_DEFAULT],
        "answers": {
            output: {"unit": answer.unit, "share": answer.unit == "probability"}
            for answer in features.ANSWERS.values()
            for output in [answer.output]
        },
    }


def _field(name: str) -> dict[str, Any]:
    feature, (scale, offset, unit) = features.BY_NAME[name], features.PHYSICAL[name]
    label, stands_in, value = _FIELDS[name]
    low, high = ((bound or 0.0) * scale + offset for bound in (feature.minimum, feature.maximum))
    hint = f"if left out, the {_FIELDS[stands_in][0].lower()}" if stands_in else ""
    return {
        "label": label, "unit": unit, "scale": scale, "offset": offset, "low": low, "high": high, "value": value,
        "stands_in": stands_in, "hint": hint,
    }  # fmt: skip


def _style() -> str:
    return "\n".join(_text(name) for name in ("style.css", "page.css", "forecast.css"))


def _text(name: str) -> str:
    return (resources.files("bike_pipeline.pages") / "templates" / name).read_text(encoding="utf-8")
