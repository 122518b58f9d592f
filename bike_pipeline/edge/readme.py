"""The README of a bundle: what a person with nothing but the bundle needs to ask the model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

# A working morning in June 2012, mild and clear.
EXAMPLE: dict[str, int | float] = {
    "yr": 1,
    "mnth": 6,
    "hr": 8,
    "holiday": 0,
    "weekday": 5,
    "workingday": 1,
    "weathersit": 1,
    "temp": 0.6,
    "atemp": 0.58,
    "hum": 0.5,
    "windspeed": 0.2,
}

_TEXT = """\
# {name}, version {version}

Bike rentals an hour from calendar and weather, for devices. Format: {model_format}.{forced}

| file | what it is |
|---|---|
| manifest.json, manifest.json.sig | every file with its SHA-256; the ed25519 signature |
| feature_contract.json | what goes in and comes out: names, types, ranges, units, meanings |
| golden.json | rows and answers; a sound device answers the same |
| predictor.py | Raspberry Pi and Linux; needs ai-edge-litert and numpy |
| bike-edge.pyz | fetches and checks bundles: `python bike-edge.pyz --help`; needs cryptography too |
| models/ | the model in each format that passed its check |
| c/ | {c} |
| android/ | assets and a Kotlin class: copy app/ into the app, and take over bike_demand.gradle.kts |

## What goes in

One hour a row. Times are local, of the hour's beginning.

| input | type | range | unit | meaning |
|---|---|---|---|---|
{inputs}

Out comes `{output}`, float32: {output_meaning}, in {output_unit}.

## An example

```sh
echo '{example}' | python predictor.py
{example_rentals:.2f}
```

In a program, with one sequence of the same length for each input:

```python
from predictor import Predictor

Predictor().predict({columns})
```
{c_example}
## What is not as it should be

- **A code outside its range** (`hr` 24, `mnth` 0) is answered as the nearest one inside. `yr` counts from 2011: a whole
  year, such as 2012, is answered as any year after the training rows.
- **Weather outside its range** counts, but for four standard deviations of the training rows at most.
- **Weather that is NaN or infinite**, as of a broken sensor: {broken}
- **Records** (`predictor.py` on the command line{c_records}) are refused with one line where a value is missing, no
  number, not finite, or a part of a code, such as `hr` 8.5.
"""

_C_EXAMPLE = """
In C: `cc -std=c99 -O2 c/main.c c/bike_model.c -lm -o bike_predict`, without `-Ofast` and `-ffast-math`; it reads CSV:

```sh
printf '{header}\\n{row}\\n' | ./bike_predict
```
"""
_NAN = """\
the answer is NaN, and the other rows of the call are
  answered as ever; so ask for NaN before you use an answer."""
_MAY_BE_A_NUMBER = """\
THIS MODEL MAY ANSWER WITH A NUMBER, since it was
  exported by an earlier release: look for such values before you ask."""


def text(
    contract: Mapping[str, Any],
    *,
    name: str,
    version: int,
    model_format: str,
    example_rentals: float,
    c_source: bool,
    forced: bool,
    tells_broken: bool,
) -> str:
    """Return the README.

    Args:
        contract: see `contract.feature_contract`.
        name: the served model's name.
        version: the served version.
        model_format: the format that the bundle serves.
        example_rentals: its answer to `EXAMPLE`.
        c_source: whether the bundle holds C.
        forced: whether it was pushed against the edge gate.
        tells_broken: whether it is proven to answer NaN to what is not finite.
    """
    output = contract["output"]
    header, row = (",".join(map(str, part)) for part in (EXAMPLE, EXAMPLE.values()))
    return _TEXT.format(
        name=name,
        version=version,
        model_format=model_format,
        forced=" PUSHED AGAINST THE EDGE GATE; see manifest.json." if forced else "",
        c="C99 without a runtime; see CMakeLists.txt" if c_source else "not here: no C was exported",
        inputs="\n".join(
            f"| `{entry['name']}` | {entry['dtype']} | {_range(entry)} | {entry['unit']} | {entry['meaning']} |"
            for entry in contract["inputs"]
        ),
        output=output["name"],
        output_meaning=output["meaning"],
        output_unit=output["unit"],
        example=json.dumps(EXAMPLE),
        columns=json.dumps({key: [value, value] for key, value in EXAMPLE.items()}),
        example_rentals=example_rentals,
        c_example=_C_EXAMPLE.format(header=header, row=row) if c_source else "",
        c_records=" and the C program" if c_source else "",
        broken=_NAN if tells_broken else _MAY_BE_A_NUMBER,
    )


def _range(entry: Mapping[str, Any]) -> str:
    top = "or more" if entry["maximum"] is None else f"to {entry['maximum']:g}"
    return f"{entry['minimum']:g} {top}"
