"""The gRPC API: TF Serving's PredictionService and ModelService."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc

from bike_pipeline.serving.protos import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)
from bike_pipeline.serving.security.request_size import SMALL
from bike_pipeline.serving.server import (
    answering,
    decoding,
    examples_api,
    messages,
    signatures,
    tensors,
    version_policy,
)
from bike_pipeline.serving.server.answering import Answering
from bike_pipeline.serving.server.batching import Columns
from bike_pipeline.serving.server.parsing import Parsing
from bike_pipeline.serving.server.served_version import ServedVersion
from bike_pipeline.serving.server.signatures import Signature
from bike_pipeline.serving.server.tensors import Array
from bike_pipeline.serving.statuses import Code, StatusError, invalid
from bike_pipeline.settings.serving_security import LimitSettings

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"
# Bytes of a message that holds nothing for a model, such as the configuration of many models.
_MOST_WITHOUT_INPUTS = 1 << 20

# Of a request with examples: its API, the method of its signatures, and what answers it.
_EXAMPLES = {
    classification_pb2.ClassificationRequest: (
        "Classify",
        examples_api.CLASSIFY,
        classification_pb2.ClassificationResponse,
    ),
    regression_pb2.RegressionRequest: ("Regress", examples_api.REGRESS, regression_pb2.RegressionResponse),
}

Answer = Callable[..., Awaitable[Any]]
# Of a large message: its inputs, which are arrays already.
Typed = Mapping[str, tuple[int, Array]]
Examples = Mapping[str, Array]


class GrpcApi:
    """Answers both services."""

    def __init__(self, answers: Answering, parsing: Parsing, limits: LimitSettings) -> None:
        self._parsing = parsing
        self._limits = limits
        self._versions = answers.versions
        self._answers = answers
        self._draining = False
        self._refused = 0

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        prediction = {
            "Predict": self._handler(self._predict, predict_pb2.PredictRequest, decoding.grpc_predict),
            "GetModelMetadata": self._handler(self._metadata, get_model_metadata_pb2.GetModelMetadataRequest),
            "MultiInference": self._handler(
                self._multi_inference, inference_pb2.MultiInferenceRequest, decoding.grpc_examples, "MultiInference"
            ),
            **{
                api: self._handler(self._examples, kind, decoding.grpc_examples, api)
                for kind, (api, *_) in _EXAMPLES.items()
            },
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

    def _handler(
        self, answer: Answer, kind: Any, decode: Callable[..., Any] | None = None, *arguments: Any
    ) -> grpc.RpcMethodHandler:
        """Return a handler; the guard before it answers what is raised.

        Args:
            answer: called with the request; with that of a large message, which is parsed elsewhere, and its inputs.
            kind: the request's type.
            decode: parses large messages; without it there are none.
            arguments: what it needs besides.
        """

        async def parsed(message: bytes) -> tuple[Any, ...]:
            if len(message) <= SMALL or (decode is None and len(message) <= _MOST_WITHOUT_INPUTS):
                return (decoding.read(kind, message),)
            if decode is None:
                raise StatusError(Code.RESOURCE_EXHAUSTED, f"The message is larger than {_MOST_WITHOUT_INPUTS} bytes.")
            rest, inputs = await self._parsing.run(decode, message, self._limits, *arguments)
            return kind.FromString(rest), inputs

        async def handle(message: bytes, context: Any) -> bytes:
            if self._draining:
                self._refused += 1
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping")
            response = await answer(*await parsed(message))
            content: bytes = response.SerializeToString()
            return content

        return grpc.unary_unary_rpc_method_handler(handle)

    def _find(self, spec: Any) -> ServedVersion:
        return self._versions.find(*_named(spec))

    async def _predict(self, request: Any, inputs: Typed | None = None) -> Any:
        spec = request.model_spec
        with self._answers.counting(spec.name, "GRPC"), self._find(spec) as version:
            return await self._predicted(request, inputs, version)

    async def _predicted(self, request: Any, inputs: Typed | None, version: ServedVersion) -> Any:
        signature = answering.signature_of(version.loaded.signatures, request.model_spec.signature_name, rest=False)
        specs = signature.inputs
        sent = request.inputs if inputs is None else inputs
        tensors.check_names(sent, specs)
        wanted = list(request.output_filter)
        answering.check_filter(wanted, signature)
        columns: Columns | None
        rows: int | None = 1
        if inputs is not None:
            columns = {name: tensors.of_type(*inputs[name], spec, name) for name, spec in specs.items()}
            rows = tensors.rows_of(columns, signature)
        elif (columns := tensors.plain_row(sent, signature) if signature.plain else None) is None:
            most = self._limits.rows
            columns = {name: tensors.column(sent[name], spec, name, most) for name, spec in specs.items()}
            rows = tensors.rows_of(columns, signature)
        outputs = await self._answers.predict(version, signature, columns, rows)
        response = predict_pb2.PredictResponse()
        _set_model_spec(response.model_spec, version, signature.name)
        for name in wanted or outputs:
            tensors.fill(response.outputs[name], outputs[name])
        return response

    async def _examples(self, request: Any, columns: Examples | None = None) -> Any:
        api, method, kind = _EXAMPLES[type(request)]
        response, spec = kind(), request.model_spec
        with self._answers.counting(spec.name, "GRPC", api), self._find(spec) as version:
            signature = examples_api.signature_of(version, spec.signature_name, method)
            examples = columns or examples_api.columns_of(request.input)
            outputs, rows = await self._answers.examples(version, signature, examples)
            response.result.CopyFrom(examples_api.result_of(method, outputs, rows))
            _set_model_spec(response.model_spec, version, signature.name)
        return response

    async def _multi_inference(self, request: Any, columns: Examples | None = None) -> Any:
        if not request.tasks:
            raise invalid("Inference request must have at least one task")
        spec = request.tasks[0].model_spec
        response = inference_pb2.MultiInferenceResponse()
        with self._answers.counting(spec.name, "GRPC", "MultiInference"), self._find(spec) as version:
            # All are looked at before the first is answered.
            tasks = [(task, _task_signature(task, request, version)) for task in request.tasks]
            examples = columns or examples_api.columns_of(request.input)
            for task, signature in tasks:
                outputs, rows = await self._answers.examples(version, signature, examples)
                result = response.results.add()
                answered = examples_api.result_of(task.method_name, outputs, rows)
                is_regression = task.method_name == examples_api.REGRESS
                (result.regression_result if is_regression else result.classification_result).CopyFrom(answered)
                _set_model_spec(result.model_spec, version, signature.name)
        return response

    async def _metadata(self, request: Any) -> Any:
        return messages.metadata(self._find(request.model_spec), request.metadata_field)

    async def _status(self, request: Any) -> Any:
        return messages.status(self._versions.statuses(*_named(request.model_spec)))

    async def _reload(self, request: Any) -> Any:
        response = model_management_pb2.ReloadConfigResponse()
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid("Only ModelServerConfig with a model_config_list is supported for reloading")
        configs = [version_policy.from_proto(config) for config in request.config.model_config_list.config]
        await self._versions.configure(configs, there=True)
        response.status.error_code = 0
        return response


def _task_signature(task: Any, request: Any, version: ServedVersion) -> Signature:
    """Return the signature of a task of a MultiInference request, or refuse it: it does not fit the others."""
    if not task.model_spec.name:
        raise invalid("Found ModelSpec with an empty model name.")
    if any(other.model_spec.name != version.model for other in request.tasks):
        raise invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
    name = task.model_spec.signature_name or signatures.DEFAULT
    if sum((other.model_spec.signature_name or signatures.DEFAULT) == name for other in request.tasks) > 1:
        raise invalid(f"Duplicate evaluation of signature: {name}")
    if name not in version.loaded.signatures:
        raise invalid(f"Requested signature not found in model graph: {name}")
    if task.method_name not in (examples_api.CLASSIFY, examples_api.REGRESS):
        raise StatusError(Code.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}")
    return examples_api.signature_of(version, name, task.method_name)


def _set_model_spec(spec: Any, version: ServedVersion, signature: str) -> None:
    spec.name = version.model
    spec.version.value = version.number
    spec.signature_name = signature


def _named(spec: Any) -> tuple[str, int | None, str | None]:
    if not spec.name:
        raise invalid("Missing ModelSpec")
    choice = spec.WhichOneof("version_choice")
    if choice == "version":
        return spec.name, spec.version.value, None
    return spec.name, None, spec.version_label if choice == "version_label" else None
