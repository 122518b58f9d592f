"""What a settings file and `--set` take for a number, a truth value and a text."""

from __future__ import annotations

import functools
import math

import pytest
from click.testing import CliRunner
from pydantic import BaseModel

from bike_pipeline import cli
from bike_pipeline.errors import ConfigurationError, ExitCode
from bike_pipeline.settings import Settings, load_settings

VERSIONS = [
    ("beam.flink.version", "1.20"),
    ("beam.job_server.version", "2.65.0"),
    ("edge.minimum.python", "3.10"),
    ("edge.minimum.numpy", "2"),
    ("gateway.tls.minimum_version", "1.3"),
    ("serving.configuration.container.user", "1000:1000"),
    ("workspace", "2026-11-28"),
    ("edge.author", "no"),
    ("edge.license", "0x1F"),
    ("data.store", "65e3"),
]


def at(settings, name):
    return functools.reduce(getattr, name.split("."), settings)


def as_file(folder, name, value):
    *sections, last = name.split(".")
    lines = [f"{'  ' * depth}{part}:" for depth, part in enumerate(sections)]
    path = folder / "overlay.yaml"
    path.write_text("\n".join([*lines, f"{'  ' * len(sections)}{last}: {value}"]) + "\n", encoding="utf-8")
    return path


def refusal(name, value, folder):
    """Return what is said of a value as `--set` and in a file, which is the same."""
    said = []
    for given in ((None, (f"{name}={value}",)), (as_file(folder, name, value), ())):
        with pytest.raises(ConfigurationError) as error:
            load_settings(*given)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 500
        said.append(error.value.what)
    assert said[0] == said[1]
    return said[0]


@pytest.mark.parametrize(("name", "text"), VERSIONS)
def test_a_text_is_what_was_written(name, text, tmp_path):
    assert str(at(load_settings(None, (f"{name}={text}",)), name)) == text
    assert str(at(load_settings(as_file(tmp_path, name, text)), name)) == text


def test_labels_of_nodes_and_variables_are_what_was_written():
    settings = load_settings(
        None,
        (
            "kubeflow.default_resources.node_selector={gpu: true, zone: 010, 1: 2}",
            "kubeflow.environment={A: 1e3, B: 0o17, C: .5}",
        ),
    )
    assert settings.kubeflow.default_resources.node_selector == {"gpu": "true", "zone": "010", "1": "2"}
    assert settings.kubeflow.environment == {"A": "1e3", "B": "0o17", "C": ".5"}


@pytest.mark.parametrize(
    ("text", "value"), [("7", 7), ("+7", 7), ("0o10", 8), ("0x10", 16), ("1e2", 100), ("10.0", 10), ("7 # days", 7)]
)
def test_a_whole_number_is_read_as_yaml_1_2_says(text, value):
    got = load_settings(None, (f"training.epochs={text}",)).training.epochs
    assert (got, type(got)) == (value, int)


@pytest.mark.parametrize(("text", "value"), [("1e-3", 0.001), (".5", 0.5), ("5.", 5.0), ("1", 1.0), ("1.5E+1", 15.0)])
def test_a_number_is_read_as_yaml_1_2_says(text, value):
    assert load_settings(None, (f"training.learning_rate={text}",)).training.learning_rate == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("010", "'010' is octal to some readers of YAML"),
        ("-010", "'-010' is octal to some readers of YAML"),
        ("1:30", "should be a number"),
        ("1_0", "should be a number"),
        ("0b11", "should be a number"),
        ("true", "should be a number"),
        ("yes", "should be a number"),
        ('"7"', "should be a number, without quotes"),
        ("٧", "should be a number"),
        ("2026-11-28", "should be a number"),
        ("1.5", "valid integer"),
        (".inf", "finite"),
        (".nan", "finite"),
        ("1e999", "finite"),
        ("9" * 30, "too large"),
        ("9" * 5000, "too large"),
        ("~", "valid integer"),
    ],
)
def test_what_is_not_plainly_a_whole_number_is_refused(text, said, tmp_path):
    assert said in refusal("training.epochs", text, tmp_path)


@pytest.mark.parametrize("text", ["yes", "on", "y", "1", "0", "1.0", "'true'", "t"])
def test_a_truth_value_is_true_or_false(text, tmp_path):
    assert "should be true or false" in refusal("training.warm_start", text, tmp_path)
    assert load_settings(None, ("training.warm_start=false",)).training.warm_start is False


def numbers(model, path=()):
    """Yield the name of every setting that is a number, outside lists and tables."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from numbers(field.annotation, (*path, name))
        elif field.annotation in (int, float):
            yield ".".join((*path, name))


def test_no_number_of_any_setting_may_be_infinite_or_none_at_all():
    names = list(numbers(Settings))
    assert len(names) > 80
    for name in names:
        for value in (".inf", "-.inf", ".nan", "1e999", "true", "010", "1:30", "9" * 5000):
            with pytest.raises(ConfigurationError) as error:
                load_settings(None, (f"{name}={value}",))
            assert name in error.value.what, (name, value)


@pytest.mark.parametrize("value", [".inf", ".nan", "true"])
def test_a_threshold_is_a_finite_number(value):
    for limit in (f"{{metric: mae, upper: {value}}}", f"{{metric: bias, lower: -0.1, upper: {value}}}"):
        with pytest.raises(ConfigurationError, match=r"value_thresholds\.0\.upper"):
            load_settings(None, (f"evaluation.value_thresholds=[{limit}]",))


def test_a_key_that_stands_there_twice_is_an_error_with_its_lines(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("seed: 3\ntraining:\n  epochs: 3\n  dropout: 0.1\n  epochs: 30\n", encoding="utf-8")
    with pytest.raises(ConfigurationError) as error:
        load_settings(path)
    assert error.value.where == f"{path}:5"
    assert "the key 'epochs' stands there twice, first in line 3" in error.value.what
    with pytest.raises(ConfigurationError, match="'epochs' stands there twice"):
        load_settings(None, ("training={epochs: 1, epochs: 2}",))


def test_a_section_may_take_over_another_and_say_some_of_it_otherwise(tmp_path):
    path = tmp_path / "merged.yaml"
    path.write_text(
        "exporting:\n  compression:\n"
        "    pruning: &own {epochs: 3, learning_rate: 0.5}\n"
        "    quantization_aware:\n      <<: *own\n      epochs: 4\n",
        encoding="utf-8",
    )
    compression = load_settings(path).exporting.compression
    assert (compression.quantization_aware.epochs, compression.quantization_aware.learning_rate) == (4, 0.5)
    assert compression.pruning.epochs == 3


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "a: " * 3 + "1",
        "{" * 2_000,
        "training: &a {epochs: *a}",
        "? [a, b]\n: 1",
        "training: !!python/object/apply:os.system [true]",
        "training: {epochs: !!int 010}",
        "a: 1\n---\nb: 2",
        "seed: \x07",
        "key: *nowhere",
    ],
)
def test_an_odd_file_is_one_clear_error(text, tmp_path):
    path = tmp_path / "odd.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as error:
        load_settings(path)
    assert str(path) in error.value.where
    assert error.value.fix
    assert "\n" not in str(error.value)


def test_nothing_behind_the_sign_is_an_empty_text():
    assert load_settings(None, ("serving.base_path=/models", "serving.base_path=")).serving.base_path == ""
    with pytest.raises(ConfigurationError, match="should be a number"):
        load_settings(None, ("training.epochs=",))


def test_what_is_finite_stays_what_it_was():
    assert all(math.isfinite(at(load_settings(), name)) for name in numbers(Settings))


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
@pytest.mark.parametrize(
    "command",
    [("reproduce", "--tolerance"), ("gc", "--keep-days"), ("submit", "--timeout"), ("bench-serving", "--rate")],
    ids=lambda words: words[0],
)
def test_an_option_is_a_finite_number_too(command, value):
    """A tolerance that is no number would accept any difference."""
    name, option = command
    done = CliRunner().invoke(cli.command, [name, f"{option}={value}"])
    assert done.exit_code == ExitCode.USAGE
    assert option in done.output


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("evaluation.busy.value_thresholds=[]", "no overall limit for log_loss, brier, auc"),
        ("evaluation.busy.value_thresholds=[{metric: auc, upper: 0.9}]", "auc takes lower, and nothing else"),
        ("evaluation.busy.value_thresholds=[{metric: brier, lower: 0.1, upper: 0.2}]", "brier takes upper"),
        (
            "evaluation.busy.value_thresholds=[{metric: calibration, lower: 0.8, upper: 0.9}]",
            "calibration is best at 1: it takes an `upper` above that",
        ),
        ("evaluation.busy.value_thresholds=[{metric: mae, upper: 1}]", "metric"),
        (
            "evaluation.busy.change_thresholds=[{metric: brier, max_increase: 0.1}]",
            "log_loss and brier need overall limits",
        ),
        (
            "evaluation.change_thresholds=[{metric: log_loss, max_increase: 0.1}]",
            "Input should be 'mae', 'rmse' or 'rmsle'",
        ),
        ("training.target=often", "training.target"),
        ("training.busy_quantile=1", "training.busy_quantile"),
    ],
)
def test_limits_of_a_classifier_are_held_to_their_metrics(assignment, said):
    with pytest.raises(ConfigurationError) as caught:
        load_settings(None, (assignment,))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        (("training.strategy=mirrored",), "the target busy is trained on one device"),
        (("exporting.compression.methods=[pruning]",), "its methods know rentals alone, not busy"),
        (("tuning.enabled=true",), "mae is no metric of the target busy"),
    ],
)
def test_what_another_target_does_without_is_refused(assignments, said):
    with pytest.raises(ConfigurationError) as caught:
        load_settings(None, ("training.target=busy", *assignments))
    assert said in str(caught.value)


def test_the_configuration_of_the_classifier_is_whole():
    settings = load_settings("configs/busy.yaml", ("tuning.enabled=true",))
    assert (settings.training.target, settings.serving.model_name) == ("busy", "bike_busy")
    own = settings.evaluation.of("busy")
    assert {limit.metric for limit in own.value_thresholds} == {
        "log_loss", "brier", "auc", "precision", "recall", "f1", "calibration",
    }  # fmt: skip
    assert settings.evaluation.of("rentals") == settings.evaluation
