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
from bike_pipeline.serving.server import answering, examples_api, model_versions, tensors
from bike_pipeline.serving.server.answering import Answering, Counted
from bike_pipeline.serving.server.examples_api import CLASSIFY, REGRESS
from bike_pipeline.serving.server.limits import SMALL
from bike_pipeline.serving.server.request_log import REQUEST_ID, request_id_of
from bike_pipeline.serving.server.served_version import ServedVersion
from bike_pipeline.serving.server.tensors import DEFAULT_SIGNATURE, Array, Columns, Signature
from bike_pipeline.serving.statuses import Code, StatusError, invalid

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"
# Bytes of a message that holds nothing for a model, such as the configuration of many models.
_MOST_WITHOUT_INPUTS = 1 << 20


class GrpcApi:
    """Answers both services."""

    def __init__(self, answers: Answering) -> None:
        self._answers = answers
        self._draining = False
        self._refused = 0

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        classify = ("Classify", CLASSIFY, classification_pb2.ClassificationResponse)
        regress = ("Regress", REGRESS, regression_pb2.RegressionResponse)
        prediction = {
            "Predict": self._handler(predict_pb2.PredictRequest, self._predict, True),
            "Classify": self._handler(classification_pb2.ClassificationRequest, self._examples, True, *classify),
            "Regress": self._handler(regression_pb2.RegressionRequest, self._examples, True, *regress),
            "MultiInference": self._handler(inference_pb2.MultiInferenceRequest, self._multi_inference, True),
            "GetModelMetadata": self._handler(get_model_metadata_pb2.GetModelMetadataRequest, self._metadata),
        }
        model = {
            "GetModelStatus": self._handler(get_model_status_pb2.GetModelStatusRequest, self._status),
            "HandleReloadConfigRequest": self._handler(model_management_pb2.ReloadConfigRequest, self._reload),
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
        self, kind: Any, answer: Callable[..., Awaitable[Any]], with_inputs: bool = False, *arguments: Any
    ) -> grpc.RpcMethodHandler:
        """Return a handler that answers with what is called with the arguments and a request of a kind.

        A large one with inputs is parsed elsewhere, and they come behind it. What is raised is answered by `calls`.
        """

        async def parsed(message: bytes) -> tuple[Any, ...]:
            if len(message) > SMALL and with_inputs:
                answers = self._answers
                rest, inputs = await answers.parsing.run(answering.grpc_inputs, message, answers.limits, kind)
                return kind.FromString(rest), inputs
            if len(message) > _MOST_WITHOUT_INPUTS:
                raise StatusError(Code.RESOURCE_EXHAUSTED, f"The message is larger than {_MOST_WITHOUT_INPUTS} bytes.")
            return (answering.read(kind, message),)

        async def handle(message: bytes, context: Any) -> bytes:
            if self._draining:
                self._refused += 1
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping")
            if with_inputs:
                metadata = dict(context.invocation_metadata() or ())
                request_id = request_id_of(str(metadata.get(REQUEST_ID, "")))
                context.set_trailing_metadata(((REQUEST_ID, request_id),))
                response = await answer(request_id, *arguments, *await parsed(message))
            else:
                response = await answer(*arguments, *await parsed(message))
            content: bytes = response.SerializeToString()
            return content

        return grpc.unary_unary_rpc_method_handler(handle)

    def _find(self, spec: Any) -> ServedVersion:
        return self._answers.versions.find(*_named(spec))

    async def _predict(
        self, request_id: str, request: Any, inputs: Mapping[str, tuple[int, Array]] | None = None
    ) -> Any:
        spec = request.model_spec
        with Counted(self._answers, request_id, spec.name, "GRPC") as counted, self._find(spec) as version:
            signature = answering.signature_of(version.loaded.signatures, spec.signature_name, rest=False)
            specs, wanted = signature.inputs, list(request.output_filter)
            tensors.check_names(request.inputs if inputs is None else inputs, specs)
            _check_filter(wanted, signature)
            columns: Columns
            if inputs is not None:
                columns = {name: tensors.of_type(*inputs[name], spec, name) for name, spec in specs.items()}
            else:
                sent, most = request.inputs, self._answers.limits.rows
                columns = tensors.plain_row(sent, signature) or {
                    name: tensors.column(sent[name], spec, name, most) for name, spec in specs.items()
                }
            outputs = await self._answers.predict(counted, version, signature, columns)
            response = predict_pb2.PredictResponse()
            _set_model_spec(response.model_spec, version, signature.name)
            for name in wanted or outputs:
                tensors.fill(response.outputs[name], outputs[name])
            return response

    async def _examples(
        self, request_id: str, api: str, method: str, kind: Any, request: Any, columns: Any = None
    ) -> Any:
        response, spec = kind(), request.model_spec
        with Counted(self._answers, request_id, spec.name, "GRPC", api) as counted, self._find(spec) as version:
            signature = examples_api.signature_of(version, spec.signature_name, method)
            examples = columns or examples_api.columns_of(request.input)
            results = await self._answers.examples(counted, version, signature, examples)
            examples_api.fill(response.result, results)
            _set_model_spec(response.model_spec, version, signature.name)
        return response

    async def _multi_inference(self, request_id: str, request: Any, columns: Any = None) -> Any:
        if not request.tasks:
            raise invalid("Inference request must have at least one task")
        spec = request.tasks[0].model_spec
        response = inference_pb2.MultiInferenceResponse()
        counting = Counted(self._answers, request_id, spec.name, "GRPC", "MultiInference")
        with counting as counted, self._find(spec) as version:
            # All are looked at before the first is answered.
            tasks = [_task_signature(task, request, version) for task in request.tasks]
            examples = columns or examples_api.columns_of(request.input)
            for signature in tasks:
                results = await self._answers.examples(counted, version, signature, examples)
                result = response.results.add()
                kind = "regression_result" if signature.method == REGRESS else "classification_result"
                examples_api.fill(getattr(result, kind), results)
                _set_model_spec(result.model_spec, version, signature.name)
        return response

    async def _metadata(self, request: Any) -> Any:
        return answering.metadata(self._find(request.model_spec), request.metadata_field)

    async def _status(self, request: Any) -> Any:
        return answering.status(self._answers.versions.statuses(*_named(request.model_spec)))

    async def _reload(self, request: Any) -> Any:
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid("Only ModelServerConfig with a model_config_list is supported for reloading")
        configs = [model_versions.from_proto(config) for config in request.config.model_config_list.config]
        await self._answers.versions.configure(configs, there=True)
        response = model_management_pb2.ReloadConfigResponse()
        response.status.error_code = 0
        return response


def _check_filter(wanted: list[str], signature: Signature) -> None:
    """Refuse an output filter that names an output which the signature lacks, or one twice."""
    for position, alias in enumerate(wanted):
        if alias not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set "
                f"{{{','.join(signature.outputs)}}}."
            )
        if alias in wanted[:position]:
            raise invalid(f"duplicate output tensor alias: {alias}")


def _task_signature(task: Any, request: Any, version: ServedVersion) -> Signature:
    """Return the signature of a task of a MultiInference request, or refuse it: it does not fit the others."""
    if not task.model_spec.name:
        raise invalid("Found ModelSpec with an empty model name.")
    if any(other.model_spec.name != version.model for other in request.tasks):
        raise invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
    name = task.model_spec.signature_name or DEFAULT_SIGNATURE
    if sum((other.model_spec.signature_name or DEFAULT_SIGNATURE) == name for other in request.tasks) > 1:
        raise invalid(f"Duplicate evaluation of signature: {name}")
    if name not in version.loaded.signatures:
        raise invalid(f"Requested signature not found in model graph: {name}")
    if task.method_name not in (CLASSIFY, REGRESS):
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
