"""Models of a metadata store and a serving folder, looked up and pushed without a pipeline around."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bike_pipeline.components import baseline_lookup, pusher
from tests.recording import Recorder


class World:
    """A metadata store, a serving folder, and models that are copies of one small real one."""

    def __init__(self, folder: Path, saved_model: Path) -> None:
        """Nothing is pushed yet."""
        self.folder, self.saved_model = folder, saved_model
        self.serving = folder / "serving" / "bike_demand"
        self.recorder = Recorder(folder / "metadata.sqlite")
        # Further parameters of the Pusher, such as `promotion`.
        self.parameters: dict[str, Any] = {}

    def model(self, name: str, extra: str = "") -> Any:
        """Return a trained model's artifact; `extra` makes its bytes its own."""
        from tfx.types import standard_artifacts

        uri = self.folder / name
        shutil.copytree(self.saved_model, uri / "Format-Serving")
        (uri / "Format-Serving" / "assets.extra" / "note.txt").write_text(name + extra)
        recorded = self.recorder.model(name, str(uri))
        artifact = standard_artifacts.Model()
        artifact.uri, artifact.id = str(uri), recorded.id
        return SimpleNamespace(artifact=artifact, recorded=recorded)

    def exports(self, content: str = "exported", latency_us: float = 20.0, **others: str) -> Any:
        """Return what the Exporter made: two formats that passed and one that did not."""
        from bike_pipeline.components.artifact_types import Exports

        artifact = Exports()
        artifact.uri = str(self.folder / "exports" / str(time.monotonic_ns()))
        formats = {"saved_model": "itself", "tiny": content, "wrong": "wrong", **others}
        for name, text in formats.items():
            (Path(artifact.uri) / name).mkdir(parents=True)
            (Path(artifact.uri) / name / "model.bin").write_text(text)
        entries = {name: {"passed": name != "wrong", "latency_us": latency_us} for name in formats}
        (Path(artifact.uri) / "parity.json").write_text(json.dumps({"formats": entries}))
        (Path(artifact.uri) / "golden.json").write_text("{}")
        return artifact

    def card(self, text: str = "a card") -> Any:
        """Return what the stage ModelCard wrote."""
        from bike_pipeline.components.artifact_types import ModelCard

        artifact = ModelCard()
        artifact.uri = str(self.folder / "cards" / str(time.monotonic_ns()))
        Path(artifact.uri).mkdir(parents=True)
        (Path(artifact.uri) / "model_card.md").write_text(text)
        return artifact

    def push(self, model: Any, blessed: bool = True, record: bool = True, exports: Any = None, card: Any = None) -> Any:
        """Run the Pusher; record it in ML Metadata unless the process is to have been killed before."""
        from tfx.types import standard_artifacts

        blessing = standard_artifacts.ModelBlessing()
        blessing.set_int_custom_property("blessed", int(blessed))
        blessing.set_string_custom_property("metric_set", "m")
        pushed = standard_artifacts.PushedModel()
        pushed.uri = str(self.folder / "pushed" / str(time.monotonic_ns()))
        pusher.PusherExecutor().Do(
            {
                "model": [model.artifact],
                "model_blessing": [blessing],
                "exports": [exports or self.exports()],
                "model_card": [card or self.card()],
            },
            {"pushed_model": [pushed]},
            {
                "push_destination": json.dumps({"filesystem": {"base_directory": str(self.serving)}}),
                **self.parameters,
            },
        )
        if record and pushed.get_int_custom_property("pushed"):
            properties = {
                k: pushed.get_string_custom_property(k) for k in ("fingerprint", "metric_set", "exports_fingerprint")
            }
            version = int(pushed.get_string_custom_property("pushed_version"))
            destination = pushed.get_string_custom_property("pushed_destination")
            self.recorder.push(model.recorded.id.__str__(), model.recorded, version, destination, **properties)
        return pushed

    def resolve(self, model: Any, accept: bool = False, metric_set: str = "m") -> dict[str, Any]:
        """Run the lookup's driver; return the parameters of the execution."""
        properties = {
            "serving_path": str(self.serving),
            "metric_set": metric_set,
            "accept_baseline_reset": int(accept),
        }
        driver = baseline_lookup.BaselineDriver(DriverConnection(self.recorder))  # type: ignore[arg-type]
        inputs = {"model": [model.artifact]} if model else {}
        information = SimpleNamespace(exec_properties=properties, input_dict=inputs)
        output = driver.run(information)  # type: ignore[arg-type]
        return {**properties, **{k: getattr(v, v.WhichOneof("value")) for k, v in output.exec_properties.items()}}

    def look_up(self, model: Any, **options: Any) -> Any:
        """Run driver and executor; return the baseline artifact."""
        from tfx.types import standard_artifacts

        output = standard_artifacts.Model()
        output.uri = str(self.folder / "baseline" / str(time.monotonic_ns()))
        baseline_lookup.BaselineLookupExecutor().Do(
            {"model": [model.artifact]} if model else {},
            {"baseline_model": [output]},
            self.resolve(model, **options),
        )
        return output


class DriverConnection:
    """What TFX hands to a driver: a context that opens the store."""

    def __init__(self, recorder: Recorder) -> None:
        self.store = recorder.store

    def __enter__(self) -> DriverConnection:
        return self

    def __exit__(self, *_: object) -> None:
        pass
