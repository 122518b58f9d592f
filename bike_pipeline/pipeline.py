"""THE pipeline: every stage, in the order in which data flows. Runners say where it runs, never what runs."""

from __future__ import annotations

import hashlib
import json
from typing import Any, TypeVar

from tfx import components
from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import pusher_pb2, trainer_pb2, transform_pb2

from bike_pipeline.components.baseline_lookup import BaselineLookup
from bike_pipeline.components.data_gate import DataGate
from bike_pipeline.components.evaluator import Evaluator
from bike_pipeline.components.example_gen import SpanExampleGen
from bike_pipeline.components.exporter import Exporter
from bike_pipeline.components.hyperparameters_lookup import HyperParametersLookup
from bike_pipeline.components.model_card import ModelCard
from bike_pipeline.components.pusher import Pusher
from bike_pipeline.components.statistics_gen import StatisticsGen
from bike_pipeline.components.transform import Transform
from bike_pipeline.components.tuner import Tuner
from bike_pipeline.errors import ConfigurationError
from bike_pipeline.exporting.formats import registry
from bike_pipeline.lineage.store.connection import connection_config
from bike_pipeline.modeling import evaluation
from bike_pipeline.modeling.targets import KINDS
from bike_pipeline.rollout.promotion import RolloutTargets
from bike_pipeline.settings import Settings
from bike_pipeline.source_hash import PACKAGE, this_source
from bike_pipeline.stages import EVAL, HISTORY, TRAIN, Stage

Component = TypeVar("Component", bound=BaseComponent)

TRAINED_ON = [HISTORY, TRAIN]


def create_pipeline(settings: Settings, enable_cache: bool = True, accept_baseline_reset: bool = False) -> Pipeline:
    """Return the pipeline for the given settings; a ConfigurationError if the schema or an export format is not there.

    With `enable_cache`, a stage is answered from an earlier run if inputs, parameters and code are the same. With
    `accept_baseline_reset`, a candidate with another signature or metric set passes without a comparison.
    """
    if not settings.schema_path.is_file():
        raise ConfigurationError(
            "no such schema", where=str(settings.schema_path), fix="name the curated schema in the setting schema_file"
        )
    # A format that nobody installed is found before hours of training and not after.
    formats = registry.formats_of((*settings.exporting.all_formats, *settings.exporting.compression.formats))
    schema_hash = hashlib.sha256(settings.schema_path.read_bytes()).hexdigest()
    target = KINDS[settings.training.target]
    metric_set = evaluation.metric_set(target)
    in_memory_rows = settings.data.in_memory_rows
    gate, training = settings.gate.model_dump_json(), settings.training.model_dump(mode="json")

    # Where workspaces share a store, none of them builds on files of another one, which may be cleaned up at any time.
    place = {"pipeline_root": settings.pipeline_root} if settings.metadata.mysql else {}

    example_gen = _identified(
        SpanExampleGen(
            input_base=settings.store_uri,
            # A parameter has a value always; 0 is no bound.
            window_spans=settings.data.window.spans or 0,
            window_days=settings.data.window.days or 0,
            in_memory_rows=in_memory_rows,
        ),
        Stage.EXAMPLE_GEN,
        **place,
    )
    examples = example_gen.outputs["examples"]

    schema_gen = _identified(
        ImportSchemaGen(str(settings.schema_path)), Stage.SCHEMA_GEN, schema_sha256=schema_hash, **place
    )
    schema = schema_gen.outputs["schema"]

    statistics_gen = _identified(StatisticsGen(examples, schema), Stage.STATISTICS_GEN, in_memory_rows=in_memory_rows)
    statistics = statistics_gen.outputs["statistics"]

    example_validator = _identified(
        components.ExampleValidator(statistics, schema, exclude_splits=[HISTORY]), Stage.EXAMPLE_VALIDATOR
    )

    data_gate = _identified(
        DataGate(statistics=statistics, schema=schema, anomalies=example_validator.outputs["anomalies"], gate=gate),
        Stage.DATA_GATE,
    )

    transform = _identified(
        Transform(
            examples,
            schema,
            preprocessing_fn="bike_pipeline.modeling.preprocessing.preprocessing_fn",
            splits_config=transform_pb2.SplitsConfig(analyze=TRAINED_ON, transform=[EVAL]),
            materialize=False,
            disable_analyzer_cache=True,
            disable_statistics=True,
        ),
        Stage.TRANSFORM,
        in_memory_rows=in_memory_rows,
    )
    # Nothing is learnt from data that the gate refused.
    transform.add_upstream_node(data_gate)

    lookup = {"serving_path": settings.serving_path, "metric_set": metric_set}
    warm_start = (
        [_identified(BaselineLookup(**lookup, accept_baseline_reset=0), Stage.WARM_START_LOOKUP)]
        if settings.training.warm_start
        else []
    )

    found: list[BaseComponent] = []
    if settings.tuning.enabled:
        tuner = Tuner(
            examples=examples,
            schema=schema,
            tuning=settings.tuning.model_dump_json(),
            training=json.dumps(training),
            seed=settings.seed,
        )
        tuner.add_upstream_node(data_gate)
        found.append(_identified(tuner, Stage.TUNER))
    elif settings.tuning.import_best:
        lookup_best = HyperParametersLookup(pipeline_root=settings.pipeline_root)
        found.append(_identified(lookup_best, Stage.HYPERPARAMETERS_LOOKUP))

    trainer = _identified(
        components.Trainer(
            examples=examples,
            schema=schema,
            transform_graph=transform.outputs["transform_graph"],
            base_model=warm_start[0].outputs["baseline_model"] if warm_start else None,
            hyperparameters=found[0].outputs["best_hyperparameters"] if found else None,
            run_fn="bike_pipeline.modeling.training.run_fn",
            train_args=trainer_pb2.TrainArgs(splits=TRAINED_ON),
            eval_args=trainer_pb2.EvalArgs(splits=[EVAL]),
            custom_config={"training": training, "seed": settings.seed},
        ),
        Stage.TRAINER,
    )
    candidate = trainer.outputs["model"]

    baseline_lookup = _identified(
        BaselineLookup(**lookup, accept_baseline_reset=int(accept_baseline_reset), model=candidate),
        Stage.BASELINE_LOOKUP,
    )

    evaluator = _identified(
        Evaluator(
            examples=examples,
            model=candidate,
            baseline_model=baseline_lookup.outputs["baseline_model"],
            schema=schema,
            example_splits=[EVAL],
            eval_config=evaluation.eval_config(settings.evaluation.of(target.name), target),
            module_path="bike_pipeline.modeling.evaluation",
        ),
        Stage.EVALUATOR,
        evaluation=settings.evaluation.model_dump_json(),
        metric_set=metric_set,
        in_memory_rows=in_memory_rows,
    )

    compressing: dict[str, Any] = (
        {
            "transform_graph": transform.outputs["transform_graph"],
            "compressing": json.dumps({"training": training, "seed": settings.seed}),
        }
        if settings.exporting.compression.methods
        else {}
    )
    exporter = _identified(
        Exporter(
            model=candidate,
            model_blessing=evaluator.outputs["blessing"],
            examples=examples,
            schema=schema,
            exporting=settings.exporting.model_dump_json(),
            evaluation=settings.evaluation.model_dump_json(),
            **compressing,
        ),
        Stage.EXPORTER,
        *(type(format_).__module__ for format_ in formats),
    )

    model_card = _identified(
        ModelCard(
            model=candidate,
            evaluation=evaluator.outputs["evaluation"],
            examples=examples,
            schema=schema,
            store_uri=settings.store_uri,
            seed=settings.seed,
            **settings.model_card.model_dump(),
        ),
        Stage.MODEL_CARD,
    )

    pusher = _identified(
        Pusher(
            model=candidate,
            model_blessing=evaluator.outputs["blessing"],
            exports=exporter.outputs["exports"],
            model_card=model_card.outputs["model_card"],
            push_destination=pusher_pb2.PushDestination(
                filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=settings.serving_path)
            ),
        ),
        Stage.PUSHER,
        promotion=RolloutTargets.of(settings).to_json(),
    )

    return Pipeline(
        pipeline_name=settings.pipeline_name,
        pipeline_root=settings.pipeline_root,
        components=[
            example_gen,
            schema_gen,
            statistics_gen,
            example_validator,
            data_gate,
            transform,
            *warm_start,
            *found,
            trainer,
            baseline_lookup,
            evaluator,
            exporter,
            model_card,
            pusher,
        ],
        enable_cache=enable_cache,
        metadata_connection_config=connection_config(settings.metadata_address),
    )


def _identified(component: Component, stage: Stage, *modules: str, **parameters: Any) -> Component:
    """Name a stage, and make its code and further parameters part of its cache key and of its record.

    Its code is that of its executor, its driver, the functions that its parameters name, and `modules`: plug-ins.
    """
    component.with_id(stage.value)
    own = component.exec_properties
    classes = (component.executor_spec.executor_class, component.driver_class)
    starts = {kind.__module__ for kind in classes if kind.__module__.startswith(f"{PACKAGE}.")}
    starts |= {own["module_path"]} if own.get("module_path") else set()
    starts |= {own[name].rpartition(".")[0] for name in ("preprocessing_fn", "run_fn") if own.get(name)}
    # What an older release wrote without a seal never answers: its files could not be checked.
    own.update(parameters, source_hash=this_source().hash_of(f"{PACKAGE}.lineage.records.sealing", *modules, *starts))
    return component
