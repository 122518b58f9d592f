"""Pusher: a blessed model becomes the next version under the serving base path, whole or not at all, and once.

Then it is validated in a process of its own, and promoted, unless the settings leave that to a person.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

from tfx import components
from tfx.components.pusher import executor as stock
from tfx.dsl.components.base import executor_spec
from tfx.orchestration import data_types_utils
from tfx.orchestration.portable import data_types
from tfx.proto import pusher_pb2
from tfx.proto.orchestration import driver_output_pb2
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import io_utils, proto_utils

from bike_pipeline.components import base
from bike_pipeline.components.artifact_types import Exports, ModelCard
from bike_pipeline.components.base import Artifacts
from bike_pipeline.exporting.acceptance import report
from bike_pipeline.lineage.queries.evidence import evidence_of
from bike_pipeline.lineage.store.metadata_store import Lineage
from bike_pipeline.model_registry import (
    ModelRegistry,
    is_intact,
    layout,
    local_copy,
    model_signature,
    signing,
    verification,
)
from bike_pipeline.modeling import saved_model
from bike_pipeline.modeling.targets import RENTALS, require_same
from bike_pipeline.rollout import promotion
from bike_pipeline.rollout.promotion import RolloutTargets
from bike_pipeline.stages import FEEDBACK_PROPERTY

EVIDENCE_PROPERTY = "evidence"


class PusherDriver(base.Driver):
    """Counts the model's pushes that are no longer there, as part of the cache key, and gathers what speaks for it.

    Without the count a run would answer "pushed" from the cache after somebody emptied or damaged the serving folder.
    """

    def run(self, execution_info: data_types.ExecutionInfo) -> driver_output_pb2.DriverOutput:
        """Return the parameter `lost_pushes`, and the evidence on the output artifact for the executor to sign.

        `lost_pushes` are the recorded pushes of this model whose files are gone or changed. The evidence follows from
        model and blessing, which are in the cache key already.
        """
        model = execution_info.input_dict["model"][0]
        with self._mlmd_connection as connection:
            lineage = Lineage(connection.store)
            pushes = [push for push in lineage.pushes() if push.model_id == model.id]
            evidence = evidence_of(lineage, model.id)
        lost = sum(not _is_whole(push.destination, push.fingerprint, push.exports_fingerprint) for push in pushes)
        result = self.output_with(execution_info, "pushed_model", EVIDENCE_PROPERTY, evidence)
        data_types_utils.set_metadata_value(result.exec_properties["lost_pushes"], lost)
        return result


class PusherExecutor(stock.Executor):
    """Copies aside, renames, and records; a push that was interrupted after the rename is recorded, not repeated."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]) -> None:
        """Push the model where it is blessed; set `pushed`, its version, destination and fingerprint on the output.

        Where the parameter `promotion` says so, the version is validated and promoted too.

        Raises:
            ServerError: the version does not pass its validation, or a server does not follow; it stays pushed.
            BaselineError: models of another target serve under this base path.
            ConfigurationError: the configured signing key cannot be used.
            StorageError: the serving folder or the local signing key cannot be written.
        """
        pushed = artifact_utils.get_single_instance(output_dict["pushed_model"])
        if not self.CheckBlessing(input_dict):
            self._MarkNotPushed(pushed)
            return
        source = self.GetModelPath(input_dict)
        wanted = pusher_pb2.PushDestination()
        proto_utils.json_to_proto(exec_properties["push_destination"], wanted)
        base_path = wanted.filesystem.base_directory
        model = artifact_utils.get_single_instance(input_dict["model"])
        blessing = artifact_utils.get_single_instance(input_dict["model_blessing"])
        metric_set = blessing.get_string_custom_property("metric_set")
        rollout = exec_properties.get("promotion")
        targets = RolloutTargets.model_validate_json(rollout) if rollout else None
        registry = ModelRegistry(base_path)
        target = saved_model.target_of(source).name
        present = registry.versions()
        newest = _newest(registry, present, target)
        if targets:
            # Before there is a version that must not serve yet.
            registry.begin()
        fingerprint = layout.fingerprint(source)
        exports = Path(artifact_utils.get_single_instance(input_dict["exports"]).uri)
        exports_fingerprint = report.fingerprint_when_pushed(exports)
        # Labels that came since made another version of the same model, which holds all that this one does.
        updated = newest if newest is not None and "feedback_of" in newest else None
        there = (updated["fingerprint"], updated["exports_fingerprint"]) if updated else None
        if (
            newest is not None
            and newest["model_id"] == model.id
            and _is_whole(registry.uri(present[-1]), *(there or (fingerprint, exports_fingerprint)))
        ):
            version = present[-1]
            fingerprint, exports_fingerprint = there or (fingerprint, exports_fingerprint)
            if updated:
                pushed.set_string_custom_property(FEEDBACK_PROPERTY, json.dumps(updated["feedback"]))
        else:
            # TFX's own numbering, the time in seconds; a clock that went back must not make an older version.
            version = max(int(time.time()), present[-1] + 1 if present else 0)
            record = {
                "model_id": model.id,
                "model_uri": model.uri,
                "fingerprint": fingerprint,
                "metric_set": metric_set,
                "target": target,
                "exports": report.passed(exports),
                "exports_fingerprint": exports_fingerprint,
                "pushed_at_ms": int(time.time() * 1000),
            }
            signer = signing.signer()
            evidence = json.loads(pushed.get_string_custom_property(EVIDENCE_PROPERTY) or "{}")

            def complete(incoming: Path) -> None:
                report.add_to_version(exports, incoming)
                shutil.copytree(artifact_utils.get_single_uri(input_dict["model_card"]), incoming / layout.CARD_FOLDER)
                model_signature.write(incoming, evidence, signer, version)

            registry.add(source, version, record, complete)
            pushed.set_string_custom_property("signature", _signature_summary(signer))
        if targets:
            pushed.set_string_custom_property("promotion", promotion.after_push(base_path, version, targets))
        io_utils.copy_dir(source, pushed.uri)
        destination = registry.uri(version)
        self._MarkPushed(pushed, destination, str(version))
        pushed.set_string_custom_property("fingerprint", fingerprint)
        pushed.set_string_custom_property("exports_fingerprint", exports_fingerprint)
        pushed.set_string_custom_property("metric_set", metric_set)
        pushed.set_string_custom_property("target", target)


def _newest(registry: ModelRegistry, present: list[int], target: str) -> dict[str, Any] | None:
    """Return the push record of the newest version that is present; BaselineError if it is of another target.

    That holds also where the metadata know nothing of the versions. Earlier releases pushed rentals alone.
    """
    newest = registry.push_record(present[-1]) if present else None
    if newest is not None:
        require_same(newest.get("target", RENTALS.name), target, registry.uri(present[-1]))
    return newest


def _is_whole(destination: str, fingerprint: str, exports_fingerprint: str) -> bool:
    """Return whether a push is there as it was made, with a manifest that nothing speaks against."""
    return (
        is_intact(destination, fingerprint, exports_fingerprint)
        and not verification.verify(local_copy(destination)).problem
    )


def _signature_summary(signer: signing.Signer | None) -> str:
    if signer is None:
        return "NOT signed, no key is configured"
    return f"signed with a new key, {signer.origin}" if signer.created else "signed"


class _Spec(standard_component_specs.PusherSpec):
    INPUTS = {**standard_component_specs.PusherSpec.INPUTS, **base.channels(exports=Exports, model_card=ModelCard)}


class Pusher(base.Component, components.Pusher):
    """TFX's Pusher with the driver and the executor above, and the exports and the card beside the model."""

    SPEC_CLASS = _Spec
    DRIVER_CLASS = PusherDriver
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(PusherExecutor)
