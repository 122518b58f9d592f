"""Kyverno's own program judges the manifests by the policies beside them, as its admission controller would."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.control_plane import program
from tests.cluster.manifests import FOLDER, OVERLAYS, objects, one_of
from tests.cluster.test_refused import GONE, POD, SERVER, STABLE, changed

POLICIES = ("bike-image-has-a-tag", "bike-resources-are-limited", "bike-runs-with-few-rights")
WRONG = {
    "latest": (POLICIES[0], f"{SERVER}.image", "bike-pipeline:latest"),
    "no tag, and a registry with a port": (POLICIES[0], f"{SERVER}.image", "registry.example:5000/bike-pipeline"),
    "no limit": (POLICIES[1], f"{SERVER}.resources.limits", GONE),
    "no request of memory": (POLICIES[1], f"{SERVER}.resources.requests.memory", GONE),
    "root": (POLICIES[2], f"{POD}.securityContext.runAsNonRoot", False),
    "root in one container": (POLICIES[2], f"{SERVER}.securityContext.runAsUser", 0),
    "no profile": (POLICIES[2], f"{POD}.securityContext.seccompProfile", GONE),
    "may gain rights": (POLICIES[2], f"{SERVER}.securityContext.allowPrivilegeEscalation", True),
    "capabilities": (POLICIES[2], f"{SERVER}.securityContext.capabilities.drop", ["NET_RAW"]),
    "the node's network": (POLICIES[2], f"{POD}.hostNetwork", True),
    "the node's files": (POLICIES[2], f"{POD}.volumes.0", {"name": "storage", "hostPath": {"path": "/"}}),
}


def judged(tmp_path: Path, manifests: list[dict[str, Any]]) -> dict[str, set[str]]:
    """Return by result ("pass", "fail") the names of the policies that say so of some manifest."""
    file = tmp_path / "manifests.yaml"
    file.write_text(yaml.safe_dump_all(manifests), encoding="utf-8")
    command = [program("kubectl-kyverno"), "apply", str(FOLDER / "policies"), "--resource", str(file)]
    done = subprocess.run(
        [*command, "--policy-report", "--output-format", "json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    report = yaml.safe_load(done.stdout[done.stdout.index("{") :])
    results: dict[str, set[str]] = {}
    for one in report["results"]:
        results.setdefault(one["result"], set()).add(one["policy"])
    assert (done.returncode != 0) == ("fail" in results), done.stdout + done.stderr
    return results


@pytest.mark.parametrize("name", OVERLAYS)
def test_what_is_deployed_passes(tmp_path: Path, name: str) -> None:
    workloads = [one for one in objects(name) if one["kind"] == "Deployment"]
    assert judged(tmp_path, workloads) == {"pass": set(POLICIES)}


@pytest.mark.parametrize(("policy", "path", "value"), WRONG.values(), ids=WRONG)
def test_a_wrong_pod_fails_by_the_policy_about_it(tmp_path: Path, policy: str, path: str, value: object) -> None:
    results = judged(tmp_path, [changed(one_of(*STABLE), path, value)])
    assert results["fail"] == {policy}
    assert results["pass"] >= set(POLICIES) - {policy}
