"""What the embedded server is held against, each a server of its own.

Started by `benchmarks/serving.py` as `python benchmarks/serving_peer.py KIND EXPORT PORT`:

- `fastapi`: what a user would write instead, by the book of the fast: FastAPI on uvicorn, the very LiteRT file that the
  embedded server answers with, orjson both ways, no model of the body to check;
- `aiohttp`: the embedded server's own HTTP stack, which reads the body and answers a constant;
- `grpc`: the embedded server's own gRPC stack, which answers a constant.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from bike_pipeline import features

_ANSWER = b'{"outputs":[123.456]}'
_TYPES = {feature.name: np.int64 if feature.kind == "int" else np.float32 for feature in features.MODEL_INPUTS}


def fastapi(export: Path) -> Any:
    """Return the FastAPI application that answers with an export.

    Args:
        export: folder of the export, named as its format.
    """
    from fastapi import FastAPI, Request, Response

    from bike_pipeline.exporting.formats.registry import format_of

    model = format_of(export.name).load(export)
    app = FastAPI()

    # On the event loop: a thread a request, FastAPI's other way, answers fewer of such short calls.
    async def answer(request: Request) -> Response:
        columns = features.with_defaults(orjson.loads(await request.body())["inputs"])
        found = model.predict({name: np.array(columns[name], kind) for name, kind in _TYPES.items()})
        return Response(
            orjson.dumps({"outputs": found}, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json"
        )

    # Annotations are texts here, and these names are the function's own.
    answer.__annotations__ = {"request": Request, "return": Response}
    app.post("/predict", response_model=None)(answer)
    return app


async def _aiohttp(port: int) -> None:
    from aiohttp import web

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=_ANSWER, content_type="application/json")

    app = web.Application()
    app.router.add_post("/predict", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await _for_ever()


async def _grpc(port: int) -> None:
    import grpc

    from bike_pipeline.serving.protos import predict_pb2
    from bike_pipeline.serving.server import tensors

    response = predict_pb2.PredictResponse()
    tensors.fill(response.outputs[features.LABEL], np.float32([123.456]))
    constant = response.SerializeToString()

    async def answer(_message: bytes, _context: Any) -> bytes:
        return constant

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    methods = {"Predict": grpc.unary_unary_rpc_method_handler(answer)}
    handler = grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", methods)
    server.add_generic_rpc_handlers([handler])
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await _for_ever()


async def _for_ever() -> None:
    # As the embedded server does once it serves.
    gc.collect()
    gc.freeze()
    await asyncio.Event().wait()


if __name__ == "__main__":
    kind, chosen = sys.argv[1], int(sys.argv[3])
    if kind == "fastapi":
        import uvicorn

        application = fastapi(Path(sys.argv[2]))
        uvicorn.run(application, host="127.0.0.1", port=chosen, log_level="error", access_log=False)
    else:
        import uvloop

        uvloop.run({"aiohttp": _aiohttp, "grpc": _grpc}[kind](chosen))
