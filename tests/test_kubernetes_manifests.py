"""The manifests in configs/kubernetes: core kinds by Kubernetes' own schemas; custom ones are the referee's."""

from __future__ import annotations

import json
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
CUSTOM_GROUPS = {"argoproj.io", "trainer.kubeflow.org"}
OBJECTS = [
    (f"{path.name}:{number}", document)
    for path in sorted((ROOT / "configs" / "kubernetes").rglob("*.yaml"))
    for number, document in enumerate(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    if document
]
CORE = [(name, document) for name, document in OBJECTS if document["apiVersion"].split("/")[0] not in CUSTOM_GROUPS]


def validate(document):
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("document", [document for _, document in CORE], ids=[name for name, _ in CORE])
def test_core_kinds_are_what_kubernetes_defines(document):
    validate(document)


@pytest.mark.parametrize(
    "change",
    [{"spec": {"accessModes": "ReadWriteMany"}}, {"spec": {"size": "20Gi"}}, {"data": {}}],
    ids=["kind of value", "unknown field", "unknown top field"],
)
def test_what_kubernetes_does_not_define_is_refused(change):
    document = json.loads(json.dumps(CORE[0][1])) | change
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(document)


def test_the_claims_that_the_settings_mount_are_there():
    settings = yaml.safe_load((ROOT / "configs" / "base.yaml").read_text(encoding="utf-8"))["kubeflow"]
    claims = {one["metadata"]["name"] for _, one in OBJECTS if one["kind"] == "PersistentVolumeClaim"}
    assert {volume["claim"] for volume in settings["volumes"]} <= claims
