"""The command line. Nothing heavy is imported before a command needs it: `--help` answers at once."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import NoReturn

import click

from bike_pipeline.errors import NO_ROOM, BikePipelineError, ExitCode, first_words, full_place, is_of_storage
from bike_pipeline.log_capture import take_any_text
from bike_pipeline.signals import Terminated, interruption, raise_on_termination
from bike_pipeline.version import __version__

# The life of a model, with the name and sentence of each command. Its code is `<name>_command` in
# bike_pipeline.commands.<group>, imported when it is called.
GROUPS = {
    "Data": {
        "data": "Ingest, list and verify versioned data.",
        "label": "Suggest which hours to label next.",
    },
    "Train": {
        "run": "Run the pipeline: from the newest span to a blessed, pushed model.",
        "reproduce": "Make a model again from what is on record, and compare.",
        "track": "Send a run to MLflow that was not sent when it ended.",
    },
    "Models": {
        "models": "List what was trained, blessed and served.",
        "export": "Export a model to other formats, each proven to be the same model.",
        "parity": "Measure how far each export is from the SavedModel, how large and how fast.",
        "compress": "Make smaller models of a blessed one, and choose one by rule.",
    },
    "Lineage": {
        "runs": "List what ran: when, on which span, with what outcome.",
        "lineage": "Show where a model came from, which models saw some rows, what changed between two.",
        "explain-run": "Write a page that tells what a run did, and why.",
        "verify": "Check a pushed model: its signature, every file, and all evidence for it.",
        "evidence": "Write all evidence for a version into one signed folder.",
        "gc": "Free the files of old artifacts, never those that a served model needs.",
    },
    "Serve": {
        "predict": "Ask the served model: a JSON record, a CSV file or standard input.",
        "predict-batch": "Answer every row of files into partitioned Parquet, on Beam.",
        "serve": "Serve the pushed model over TF Serving's protocols, gRPC and REST.",
        "gateway": "Route requests to the versions that serve: Envoy before the model servers.",
        "bench-serving": "Measure how many requests a model server answers, and how fast.",
        "serving-config": "Write TF Serving's configuration files and a compose.yaml, from the settings.",
        "api-key": "Make, list and revoke the API keys of the gateway.",
    },
    "Release": {
        "promote": "Let a pushed version serve, after it was validated in a process of its own.",
        "rollback": "Let the version serve that served before.",
        "rollout": "Let a version take over step by step, and go back by itself when it is bad.",
        "history": "List every promotion and rollback: when, by whom, why.",
        "feedback": "Correct the level of the served model by labels that arrived after training.",
    },
    "Monitor": {
        "monitor": "Watch the model that serves: its requests, and the labels that came later.",
        "explain": "Tell why a request was answered as it was, or what moves the model.",
    },
    "Retrain": {
        "watch": "Ask the triggers again and again, and run the pipeline once for each change.",
        "retrain": "Run the pipeline for a reason, and keep that in the ledger.",
        "simulate": "Tell what each policy of retraining would have made of the embedded years.",
        "triggers": "Show what triggers saw, what came of it, and why something did not fire.",
    },
    "Edge": {
        "push": "Push a model to devices.",
        "export-page": "Write the page for people as one file that asks a server.",
    },
    "Cluster": {
        "compile": "Write the pipeline for Kubeflow Pipelines or Vertex AI.",
        "submit": "Upload the pipeline to Kubeflow Pipelines and run it there.",
        "schedule": "Make, list, switch and delete recurring runs on Kubeflow Pipelines.",
        "trainjob": "Write the manifest of a training by several pods (Kubeflow Trainer).",
        "manifests": "Write what serves the model on Kubernetes, for kustomize, from the settings.",
    },
    "Set-up": {
        "config": "Show the settings, or their schema.",
        "doctor": "Show what is installed, what is missing and how to get it.",
    },
}
COMMANDS = {name: sentence for group in GROUPS.values() for name, sentence in group.items()}


_debug = {"traceback": False}


def _python_name(title: str) -> str:
    return title.lower().replace("-", "_")


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        group = next(title for title, names in GROUPS.items() if cmd_name in names)
        module = importlib.import_module(f"bike_pipeline.commands.{_python_name(group)}")
        found = getattr(module, f"{_python_name(cmd_name)}_command")
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        # One column of names, whatever group they are in.
        width = max(map(len, COMMANDS))
        for title, group in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), sentence) for name, sentence in group.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bike-pipeline")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def command(debug: bool) -> None:
    """Hourly bike-sharing demand: versioned data, a gated training pipeline, a served model, its lineage."""
    _debug["traceback"] = _debug["traceback"] or debug


def _stop(message: str, code: int) -> NoReturn:
    if _debug["traceback"]:
        traceback.print_exc()
    asked = interruption()
    if asked is not None:
        # Then this error is what a library made of being cut off.
        message, code = _interrupted(f" by {asked}" if isinstance(asked, Terminated) else ""), ExitCode.INTERRUPTED
    # A terminal that was closed takes no more words.
    with contextlib.suppress(OSError):
        click.echo(f"error: {message}", err=True)
    sys.exit(code)


def _interrupted(by: str) -> str:
    return f"interrupted{by}; what was finished is kept, and the next run goes on from there."


def main() -> None:
    """Run the command line; every error ends as one line and an exit code of its own (see `ExitCode`)."""
    _debug["traceback"] = bool(os.environ.get("BIKE_PIPELINE_DEBUG"))
    take_any_text()
    raise_on_termination()
    try:
        command.main(standalone_mode=False)
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort) as error:
        # click makes its own error of any interruption.
        by = next((f" by {e}" for e in (error, error.__cause__) if isinstance(e, Terminated)), "")
        _stop(_interrupted(by), ExitCode.INTERRUPTED)
    except BikePipelineError as error:
        _stop(str(error), error.exit_code)
    except BrokenPipeError:
        # The reader of our output is gone (`| head`); there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.UNFORESEEN)
    except OSError as error:
        from tempfile import gettempdir

        place = error.filename or (full_place((Path.cwd(), gettempdir())) if error.errno in NO_ROOM else "")
        where = f"{place}: " if place else ""
        _stop(f"{where}{error.strerror or error}. Check permissions and free space there.", ExitCode.STORAGE)
    except Exception as error:  # noqa: BLE001 (the last resort: no traceback reaches a person unasked)
        # Told without loading ML Metadata's library.
        if type(error).__module__ == "ml_metadata.errors":
            first = first_words(error, 200)
            if is_of_storage(error):
                _stop(
                    f"the metadata store cannot be written ({first}). Free space or grant write permission, then run "
                    "again: finished stages are not repeated.",
                    ExitCode.STORAGE,
                )
            _stop(
                f"the metadata store does not answer ({first}). Check that it is whole, reachable and not locked.",
                ExitCode.METADATA,
            )
        _stop(
            f"{type(error).__name__}: {first_words(error, 1000)}. This was not foreseen; `bike-pipeline --debug …` "
            "shows the traceback.",
            ExitCode.UNFORESEEN,
        )


if __name__ == "__main__":
    main()
