"""The served model in the Responsible AI Toolbox: `make rai ARGS="rentals.csv --server 127.0.0.1:8501"`.

Writes what its error analysis and its explainer find of the model behind the server, and with --port shows its
dashboard. The toolbox needs older libraries, and so an environment of its own.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

import pandas as pd
import served_rows
from responsibleai import RAIInsights

from bike_pipeline import features
from bike_pipeline.errors import BikePipelineError

CODES = ("holiday", "workingday", "weathersit")
SUMMARY = "summary.json"


class ServedModel:
    """What scikit-learn calls a regressor; its answers are those of the server."""

    def __init__(self, address: str) -> None:
        self.address = address

    def predict(self, rows: pd.DataFrame) -> Any:
        """Return the served answers to rows, (rows,)."""
        frame = pd.DataFrame(rows, columns=list(served_rows.INPUTS))
        return served_rows.Served(self.address)({name: frame[name].to_numpy() for name in served_rows.INPUTS})


def insights(path: Path, count: int, address: str) -> RAIInsights:
    """Return the toolbox's insights: every other row trains its surrogate, the rows between are looked at."""
    columns, label = served_rows.read(path, count)
    frame = pd.DataFrame({name: columns[name] for name in served_rows.INPUTS})
    # The toolbox does not say why a model cannot be asked.
    ServedModel(address).predict(frame.head(1))
    frame[features.LABEL] = label
    train, test = (frame.iloc[start::2].reset_index(drop=True) for start in (0, 1))
    found = RAIInsights(
        ServedModel(address), train, test, features.LABEL, "regression", categorical_features=list(CODES)
    )
    found.error_analysis.add()
    found.explainer.add()
    found.compute()
    return found


def summary(found: RAIInsights) -> dict[str, Any]:
    """Return the toolbox's importance of each input, the largest first, and its tree of errors, as plain values."""
    importance = found.explainer.get()[0].get_feature_importance_dict()
    tree = found.error_analysis.get()[0].tree
    return {"importance": {name: float(value) for name, value in importance.items()}, "error_tree": tree}


def main() -> None:
    """Write the insights, and show them if a port is named."""
    parser = served_rows.arguments(str(__doc__), 1000)
    parser.add_argument("--output", type=Path, default=Path("rai-insights"), help="folder to write (%(default)s)")
    parser.add_argument("--port", type=int, help="show the dashboard there until it is stopped")
    args = parser.parse_args()
    try:
        found = insights(args.rows, args.count, args.server)
    except BikePipelineError as error:
        sys.exit(f"error: {error}")
    found.save(str(args.output))
    (args.output / SUMMARY).write_text(json.dumps(summary(found), indent=1, default=str), encoding="utf-8")
    print(f"insights: {args.output}", flush=True)
    if args.port is not None:
        from raiwidgets import ResponsibleAIDashboard

        ResponsibleAIDashboard(found, port=args.port)
        threading.Event().wait()


if __name__ == "__main__":
    main()
