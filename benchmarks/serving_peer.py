"""What a user would write instead of the embedded server: FastAPI, and the SavedModel called once a request.

Started by `benchmarks/serving.py` as `python benchmarks/serving_peer.py MODEL PORT`.
"""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Inputs(BaseModel):
    """The model's inputs, one value a row."""

    yr: list[int]
    mnth: list[int]
    hr: list[int]
    holiday: list[int]
    weekday: list[int]
    workingday: list[int]
    weathersit: list[int]
    temp: list[float]
    atemp: list[float]
    hum: list[float]
    windspeed: list[float]


class Request(BaseModel):
    """TF Serving's column format, so that both servers get the very same bytes."""

    inputs: Inputs


def application(model: str) -> FastAPI:
    """Return the application that answers for a SavedModel.

    Args:
        model: folder of the SavedModel.
    """
    loaded = tf.saved_model.load(model)
    predict = loaded.signatures["serving_default"]
    app = FastAPI()

    @app.post("/predict")
    async def answer(request: Request) -> dict[str, Any]:
        # On the event loop: a thread a request, FastAPI's other way, answers fewer of such short calls.
        tensors = {
            name: tf.constant(values, tf.float32 if isinstance(values[0], float) else tf.int64)
            for name, values in request.inputs.__dict__.items()
        }
        return {"outputs": predict(**tensors)["cnt"].numpy().tolist()}

    return app


if __name__ == "__main__":
    uvicorn.run(application(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), log_level="error", access_log=False)
