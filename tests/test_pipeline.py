"""The definition of the pipeline: what learns from which rows, and what makes a stage run again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import trainer_pb2, transform_pb2
from tfx.utils import json_utils, proto_utils

from bike_pipeline import pipeline
from bike_pipeline.settings import load_settings
from bike_pipeline.source_hash import PACKAGE, PACKAGE_ROOT, SourceTree
from bike_pipeline.stages import Stage

ORDER = [
    "CsvExampleGen",
    "ImportSchemaGen",
    "StatisticsGen",
    "ExampleValidator",
    "DataGate",
    "Transform",
    "Trainer",
    "BaselineLookup",
    "Evaluator",
    "Exporter",
    "ModelCard",
    "Pusher",
]


def defined(tmp_path: Any, *assignments: str, **options: Any) -> Pipeline:
    """Return the pipeline of the shipped settings with a workspace of its own."""
    return pipeline.create_pipeline(load_settings(assignments=(f"workspace={tmp_path}", *assignments)), **options)


def by_id(found: Pipeline) -> dict[str, Any]:
    """Return the stages by name, in order."""
    return {component.id: component for component in found.components}


def parameters(found: Pipeline) -> dict[str, dict[str, str]]:
    """Return what TFX puts into each stage's cache key beside its inputs."""
    return {
        component.id: {
            key: value if isinstance(value, str) else repr(value) for key, value in component.exec_properties.items()
        }
        for component in found.components
    }


def changed(before: Pipeline, after: Pipeline) -> set[str]:
    """Return the stages whose parameters differ."""
    old, new = parameters(before), parameters(after)
    assert set(old) == set(new)
    return {name for name in old if old[name] != new[name]}


def test_the_stages_in_the_order_of_the_data(tmp_path: Any) -> None:
    assert list(by_id(defined(tmp_path))) == ORDER


def test_no_later_hour_is_learnt_from(tmp_path: Any) -> None:
    stages = by_id(defined(tmp_path))
    splits = transform_pb2.SplitsConfig()
    proto_utils.json_to_proto(stages["Transform"].exec_properties["splits_config"], splits)
    # The analyzers see what training sees: a mean over eval rows would be a look into the future.
    assert sorted(splits.analyze) == ["history", "train"]
    trained, evaluated = trainer_pb2.TrainArgs(), trainer_pb2.EvalArgs()
    proto_utils.json_to_proto(stages["Trainer"].exec_properties["train_args"], trained)
    proto_utils.json_to_proto(stages["Trainer"].exec_properties["eval_args"], evaluated)
    assert sorted(trained.splits) == ["history", "train"]
    assert list(evaluated.splits) == ["eval"]
    assert json_utils.loads(stages["Evaluator"].exec_properties["example_splits"]) == ["eval"]


def test_nothing_is_learnt_before_the_gate_has_passed(tmp_path: Any) -> None:
    stages = by_id(defined(tmp_path))
    for name in ("Transform", "Trainer", "Evaluator", "Pusher"):
        waiting, upstream = [stages[name]], set()
        while waiting:
            for node in waiting.pop().upstream_nodes:
                if node.id not in upstream:
                    upstream.add(node.id)
                    waiting.append(node)
        assert "DataGate" in upstream, name


def test_only_a_blessed_model_reaches_the_pusher(tmp_path: Any) -> None:
    stages = by_id(defined(tmp_path))
    assert set(stages["Pusher"].inputs) == {"model", "model_blessing", "exports", "model_card"}
    for name in ("Exporter", "Pusher"):
        assert stages[name].inputs["model_blessing"].producer_component_id == "Evaluator"
    assert stages["Evaluator"].inputs["baseline_model"].producer_component_id == "BaselineLookup"


def test_the_same_settings_are_the_same_parameters(tmp_path: Any) -> None:
    assert changed(defined(tmp_path), defined(tmp_path)) == set()


@pytest.mark.parametrize(
    ("assignment", "stages"),
    [
        ("training.epochs=3", {"Trainer"}),
        ("seed=4", {"Trainer", "ModelCard"}),
        ("gate.default_severity=warning", {"DataGate"}),
        ("gate.min_rows.eval=7", {"DataGate"}),
        ("evaluation.max_mae_to_mean=0.5", {"Evaluator", "Exporter"}),
        ("evaluation.min_rows.season=7", {"Evaluator", "Exporter"}),
        ("exporting.max_mae_increase=0.5", {"Exporter"}),
        ("model_card.repeats=3", {"ModelCard"}),
        ("exporting.formats=[saved_model]", {"Exporter"}),
        ("data.window.spans=3", {"CsvExampleGen"}),
        ("data.window.days=300", {"CsvExampleGen"}),
        ("data.in_memory_rows=3", {"CsvExampleGen", "StatisticsGen", "Transform", "Evaluator"}),
        ("beam.pipeline_args=[--no_pipeline_type_check, --streaming]", set()),
        ("beam.engine=flink", set()),
        ("beam.direct.workers=1", set()),
        ("beam.flink.parallelism=8", set()),
        ("serving.model_name=other", {"BaselineLookup", "Pusher"}),
    ],
)
def test_a_setting_is_a_parameter_of_the_stages_that_it_changes_and_of_no_other(
    tmp_path: Any, assignment: str, stages: set[str]
) -> None:
    assert changed(defined(tmp_path), defined(tmp_path, assignment)) == stages


def test_an_edited_schema_is_another_parameter(tmp_path: Any) -> None:
    edited = tmp_path / "schema.pbtxt"
    shipped = load_settings().schema_path.read_text(encoding="utf-8")
    edited.write_text(shipped, encoding="utf-8")
    before = defined(tmp_path, f"schema_file={edited}")
    edited.write_text(shipped.replace("threshold: 0.05", "threshold: 0.06"), encoding="utf-8")
    assert changed(before, defined(tmp_path, f"schema_file={edited}")) == {"ImportSchemaGen"}


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The modules that each stage starts from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SourceTree, "hash_of", lambda _, *names: json.dumps(names))
        workspace = tmp_path_factory.mktemp("workspace")
        found = parameters(defined(workspace, "training.warm_start=true", "tuning.enabled=true"))
        found |= {**parameters(defined(workspace, "tuning.import_best=true")), **found}
    return {stage: json.loads(values["source_hash"]) for stage, values in found.items()}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package that may be edited."""
    folder = tmp_path_factory.mktemp("copy") / PACKAGE
    return Path(shutil.copytree(PACKAGE_ROOT, folder, ignore=shutil.ignore_patterns("__pycache__")))


@pytest.fixture(scope="module")
def hashes(copy: Path, starts: dict[str, list[str]]) -> dict[str, str]:
    """The hash of each stage's source before anything is edited."""
    return hashes_of(copy, starts)


def hashes_of(package: Path, starts: dict[str, list[str]]) -> dict[str, str]:
    tree = SourceTree(package)
    return {stage: tree.hash_of(*names) for stage, names in starts.items()}


ON_BEAM = {Stage.EXAMPLE_GEN, Stage.STATISTICS_GEN, Stage.TRANSFORM, Stage.EVALUATOR}
# Those that train a model.
TRAINED = {Stage.TRAINER, Stage.EXPORTER, Stage.TUNER}
LOOKUPS = {Stage.WARM_START_LOOKUP, Stage.BASELINE_LOOKUP}
# Those that read a model's files.
READING = LOOKUPS | {Stage.EVALUATOR, Stage.MODEL_CARD, Stage.PUSHER}
# Those whose drivers ask ML Metadata.
ASKING = LOOKUPS | {Stage.HYPERPARAMETERS_LOOKUP, Stage.MODEL_CARD, Stage.PUSHER}


@pytest.mark.parametrize(
    ("edited", "stages"),
    [
        ("components/example_gen.py", {Stage.EXAMPLE_GEN}),
        # DataGate reads the sums that StatisticsGen wrote.
        ("components/statistics_gen.py", {Stage.STATISTICS_GEN, Stage.DATA_GATE}),
        ("components/data_gate.py", {Stage.DATA_GATE}),
        ("components/evaluator.py", {Stage.EVALUATOR}),
        ("components/exporter.py", {Stage.EXPORTER}),
        ("components/model_card.py", {Stage.MODEL_CARD}),
        ("components/tuner.py", {Stage.TUNER}),
        ("modeling/tuning.py", {Stage.TUNER}),
        ("modeling/permutation_importance.py", {Stage.MODEL_CARD}),
        ("components/baseline_lookup.py", LOOKUPS),
        ("components/pusher.py", {Stage.PUSHER}),
        ("components/beam_engine.py", ON_BEAM | {Stage.DATA_GATE, Stage.TUNER}),
        ("components/base.py", set(Stage) - {Stage.SCHEMA_GEN, Stage.EXAMPLE_VALIDATOR, Stage.TRAINER}),
        ("data/spans.py", {Stage.EXAMPLE_GEN, Stage.MODEL_CARD}),
        ("data/plausibility.py", {Stage.DATA_GATE}),
        # Those that read a model's files know what it is written by.
        ("modeling/preprocessing.py", READING | TRAINED | {Stage.TRANSFORM}),
        ("modeling/architectures/deep.py", TRAINED),
        # Only a process of its own runs it.
        ("modeling/cluster.py", TRAINED),
        # What a model answers knows what it is measured by.
        ("modeling/metrics.py", READING | TRAINED),
        ("modeling/rows.py", ON_BEAM | {Stage.DATA_GATE, Stage.TRAINER, Stage.EXPORTER, Stage.MODEL_CARD, Stage.TUNER}),
        ("features.py", set(Stage) - {Stage.SCHEMA_GEN, Stage.EXAMPLE_VALIDATOR}),
        ("lineage/queries/evidence.py", {Stage.MODEL_CARD, Stage.PUSHER}),
        ("lineage/store/metadata_store.py", ASKING),
        ("lineage/records/sealing.py", set(Stage)),
        ("exporting/acceptance/parity.py", {Stage.EXPORTER, Stage.PUSHER}),
        ("exporting/formats/tflite.py", {Stage.EXPORTER}),
        # None of the formats of the settings.
        ("exporting/formats/torch.py", set()),
        ("model_registry/model_signature.py", ASKING | {Stage.EXPORTER}),
        ("rollout/validation.py", {Stage.PUSHER}),
        ("serving/server/answering.py", {Stage.PUSHER}),
        ("settings/training.py", READING | TRAINED),
        ("settings/tree.py", set()),
        ("errors.py", set()),
        ("progress.py", set()),
        ("commands/train.py", set()),
        ("lineage/reports/graph.py", set()),
    ],
)  # fmt: skip
def test_an_edited_file_is_another_parameter_of_exactly_the_stages_that_run_it(
    hashes: dict[str, str], starts: dict[str, list[str]], copy: Path, edited: str, stages: set[str]
) -> None:
    path = copy / edited
    text = path.read_text(encoding="utf-8")
    path.write_text(f"{text}\n", encoding="utf-8")
    after = hashes_of(copy, starts)
    path.write_text(text, encoding="utf-8")
    assert {stage for stage in hashes if hashes[stage] != after[stage]} == stages


def test_every_stage_carries_the_hash_of_its_source(
    tmp_path: Path, hashes: dict[str, str], starts: dict[str, list[str]]
) -> None:
    found = parameters(defined(tmp_path, "training.warm_start=true", "tuning.enabled=true"))
    found |= {**parameters(defined(tmp_path, "tuning.import_best=true")), **found}
    assert {stage: values["source_hash"] for stage, values in found.items()} == hashes
    assert set(found) == set(Stage)
    formats = {name for name in starts[Stage.EXPORTER] if ".formats." in name}
    assert "bike_pipeline.exporting.formats.tflite" in formats


def test_a_warm_start_looks_the_serving_model_up_first(tmp_path: Any) -> None:
    stages = by_id(defined(tmp_path, "training.warm_start=true"))
    assert [name for name in stages if name != "WarmStartLookup"] == ORDER
    assert list(stages).index("WarmStartLookup") < list(stages).index("Trainer")
    assert stages["Trainer"].inputs["base_model"].producer_component_id == "WarmStartLookup"
    assert "model" not in stages["WarmStartLookup"].inputs
    assert "base_model" not in by_id(defined(tmp_path))["Trainer"].inputs


def test_a_search_is_part_of_a_run_only_where_it_is_switched_on(tmp_path: Any) -> None:
    plain, searching, importing = (
        by_id(defined(tmp_path, *assignments))
        for assignments in ((), ("tuning.enabled=true",), ("tuning.import_best=true",))
    )
    assert "hyperparameters" not in plain["Trainer"].inputs
    assert [name for name in searching if name != "Tuner"] == ORDER
    # Nothing is learnt before the gate has passed.
    assert "DataGate" in {node.id for node in searching["Tuner"].upstream_nodes}
    assert [name for name in importing if name != "HyperParametersLookup"] == ORDER
    for stages, producer in ((searching, "Tuner"), (importing, "HyperParametersLookup")):
        assert stages["Trainer"].inputs["hyperparameters"].producer_component_id == producer
    assert parameters(defined(tmp_path))["Trainer"] == parameters(defined(tmp_path, "tuning.enabled=true"))["Trainer"]


def test_an_accepted_reset_is_recorded_as_a_parameter(tmp_path: Any) -> None:
    accepted = defined(tmp_path, accept_baseline_reset=True)
    assert changed(defined(tmp_path), accepted) == {"BaselineLookup"}
    assert by_id(accepted)["BaselineLookup"].exec_properties["accept_baseline_reset"] == 1


def test_the_cache_is_on_unless_it_is_switched_off(tmp_path: Any) -> None:
    assert defined(tmp_path).enable_cache
    assert not defined(tmp_path, enable_cache=False).enable_cache
