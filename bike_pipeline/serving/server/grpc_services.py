"""The gRPC API: TF Serving's PredictionService and ModelService."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from bike_pipeline.serving.security.request_size import check_rows
from bike_pipeline.serving.server import answering, messages, tensors, version_policy
from bike_pipeline.serving.server.answering import Answering
from bike_pipeline.serving.server.json_format import same_rows
from bike_pipeline.serving.server.model_versions import ModelVersions
from bike_pipeline.serving.server.protos import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)
from bike_pipeline.serving.server.served_version import ServedVersion
from bike_pipeline.serving.server.statuses import Code, StatusError, invalid

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"
_CODES = {code.value[0]: code for code in grpc.StatusCode}

Answer = Callable[[Any], Awaitable[Any]]


class GrpcApi:
    """Answers both services."""

    def __init__(self, versions: ModelVersions, answers: Answering, max_rows: int) -> None:
        """Answer for these models.

        Args:
            versions: the models.
            answers: asks them.
            max_rows: most rows in one request.
        """
        self._versions = versions
        self._answers = answers
        self._draining = False
        self._refused = 0
        self._max_rows = max_rows

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """Return what a `grpc.aio` server is to be given."""
        prediction = {
            "Predict": self._handler(self._predict, predict_pb2.PredictRequest),
            "GetModelMetadata": self._handler(self._metadata, get_model_metadata_pb2.GetModelMetadataRequest),
            "Classify": self._handler(self._classify, classification_pb2.ClassificationRequest),
            "Regress": self._handler(self._regress, regression_pb2.RegressionRequest),
            "MultiInference": self._handler(self._multi_inference, inference_pb2.MultiInferenceRequest),
        }
        model = {
            "GetModelStatus": self._handler(self._status, get_model_status_pb2.GetModelStatusRequest),
            "HandleReloadConfigRequest": self._handler(self._reload, model_management_pb2.ReloadConfigRequest),
        }
        return [
            grpc.method_handlers_generic_handler(PREDICTION_SERVICE, prediction),
            grpc.method_handlers_generic_handler(MODEL_SERVICE, model),
        ]

    async def drain(self) -> None:
        """Refuse new calls as unavailable until none comes any more, for two seconds at most.

        Calls that wait inside gRPC when its server is shut down end as cancelled, which no client sends again.
        """
        self._draining = True
        for _ in range(20):
            refused = self._refused
            await asyncio.sleep(0.1)
            if refused == self._refused:
                return

    def _handler(self, answer: Answer, request: Any) -> grpc.RpcMethodHandler:
        """Return a handler whose errors are statuses; what else is raised, the guard before it answers."""

        async def handle(message: bytes, context: Any) -> bytes:
            if self._draining:
                self._refused += 1
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping")
            try:
                parsed = request.FromString(message)
            except Exception:  # noqa: BLE001 - protobuf's DecodeError, whose place differs between its releases
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the message cannot be parsed")
            try:
                response = await answer(parsed)
            except StatusError as error:
                await context.abort(_CODES[int(error.code)], error.message)
            content: bytes = response.SerializeToString()
            return content

        return grpc.unary_unary_rpc_method_handler(handle)

    def _find(self, spec: Any) -> ServedVersion:
        return self._versions.find(*_named(spec))

    async def _predict(self, request: Any) -> Any:
        began = time.perf_counter()
        code = Code.INTERNAL
        spec = request.model_spec
        known = spec.name if spec.name in self._versions.models else "unknown"
        try:
            with self._find(spec) as version:
                response = await self._predicted(request, version)
            code = Code.OK
            return response
        except StatusError as error:
            code = error.code
            raise
        except asyncio.CancelledError:
            # Whoever asked is gone.
            code = Code.CANCELLED
            raise
        finally:
            self._answers.count(known, "GRPC", began, code)

    async def _predicted(self, request: Any, version: ServedVersion) -> Any:
        signature = answering.signature_of(version, request.model_spec.signature_name, rest=False)
        specs = signature.inputs
        sent = request.inputs
        if len(sent) != len(specs) or any(name not in specs for name in sent):
            extra, missing = sorted(set(sent) - set(specs)), sorted(set(specs) - set(sent))
            raise invalid(
                f"input size does not match signature: {len(sent)}!={len(specs)} len({{{','.join(sorted(sent))}}}) != "
                f"len({{{','.join(specs)}}}). Sent extra: {{{','.join(extra)}}}. Missing but required: "
                f"{{{','.join(missing)}}}."
            )
        wanted = list(request.output_filter)
        answering.check_filter(wanted, signature)
        columns = {name: tensors.column(sent[name], spec, name) for name, spec in specs.items()}
        rows = same_rows(columns, signature)
        check_rows(rows, self._max_rows)
        outputs = await self._answers.predict(version, signature, columns, rows)
        response = predict_pb2.PredictResponse()
        response.model_spec.name = version.model
        response.model_spec.version.value = version.number
        response.model_spec.signature_name = signature.name
        for name in wanted or outputs:
            tensors.fill(response.outputs[name], outputs[name])
        return response

    async def _classify(self, request: Any) -> Any:
        with self._find(request.model_spec) as version:
            raise answering.refuse_examples_api(version, request.model_spec.signature_name, "classification")

    async def _regress(self, request: Any) -> Any:
        with self._find(request.model_spec) as version:
            raise answering.refuse_examples_api(version, request.model_spec.signature_name, "regression")

    async def _multi_inference(self, request: Any) -> Any:
        if not request.tasks:
            raise invalid("Inference request must have at least one task")
        task = request.tasks[0]
        with self._find(task.model_spec) as version:
            kind = "classification" if task.method_name == "tensorflow/serving/classify" else "regression"
            raise answering.refuse_examples_api(version, task.model_spec.signature_name, kind)

    async def _metadata(self, request: Any) -> Any:
        return messages.metadata(self._find(request.model_spec), request.metadata_field)

    async def _status(self, request: Any) -> Any:
        return messages.status(self._versions.statuses(*_named(request.model_spec)))

    async def _reload(self, request: Any) -> Any:
        response = model_management_pb2.ReloadConfigResponse()
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid("Only ModelServerConfig with a model_config_list is supported for reloading")
        await self._versions.configure([version_policy.from_proto(c) for c in request.config.model_config_list.config])
        response.status.error_code = 0
        return response


def _named(spec: Any) -> tuple[str, int | None, str | None]:
    if not spec.name:
        raise invalid("Missing ModelSpec")
    choice = spec.WhichOneof("version_choice")
    if choice == "version":
        return spec.name, spec.version.value, None
    return spec.name, None, spec.version_label if choice == "version_label" else None
