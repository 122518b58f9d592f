"""The module for Google Cloud, by OpenTofu itself and the schema that Google's provider publishes.

The provider itself is in no package registry: what it checks beyond its schema (values that an argument may have,
arguments that exclude each other) is asked of nobody here, and neither is Google Cloud.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.control_plane import cluster_tools, program

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import google_schema

MODULE = Path(__file__).resolve().parents[2] / "configs" / "google-cloud"
# What is asked is no provider of a registry.
HOST = "schemas.invalid"
SOURCE = '"hashicorp/google"'
TEXT = (MODULE / "main.tf").read_text(encoding="utf-8").replace(SOURCE, f'"{HOST}/hashicorp/google"')
LOCATION = "  location                    = var.region\n"
CONDITION = "    condition {\n      days_since_noncurrent_time = 30\n    }\n"
VERSIONING = "  versioning {\n    enabled = true\n  }\n"


@dataclass
class Tofu:
    """OpenTofu in a folder with one module, and with providers from a mirror on this machine alone."""

    folder: Path
    mirror: Path

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        config = self.mirror.with_suffix(".tofurc")
        config.write_text(f'provider_installation {{\n  filesystem_mirror {{\n    path = "{self.mirror}"\n  }}\n}}\n')
        environment = {**os.environ, "TF_CLI_CONFIG_FILE": str(config), "TF_IN_AUTOMATION": "1"}
        command = [program("tofu"), f"-chdir={self.folder}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)

    def errors(self, text: str) -> list[dict[str, Any]]:
        """Return what `tofu validate` says of a text."""
        (self.folder / "main.tf").write_text(text, encoding="utf-8")
        answer = json.loads(self("validate", "-json").stdout)
        assert answer["valid"] is not bool(answer["diagnostics"])
        return list(answer["diagnostics"])


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published schemas, as providers of these versions."""
    provider, folder = program("google-schema"), tmp_path_factory.mktemp("providers") / "mirror"
    platform = json.loads(Tofu(folder.parent, folder)("version", "-json").stdout)["platform"]
    for version in google_schema.PACKAGES:
        place = folder / HOST / "hashicorp" / "google" / version / platform
        place.mkdir(parents=True)
        shutil.copy(provider, place / f"terraform-provider-google_v{version}")
        shutil.copy(cluster_tools.FOLDER / f"google-{version}.json", place / "schema.json")
    return folder


@pytest.fixture(scope="module", params=google_schema.PACKAGES)
def tofu(request: pytest.FixtureRequest, mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Tofu:
    """OpenTofu, for which one version of the provider is installed."""
    tofu = Tofu(tmp_path_factory.mktemp("module"), mirror)
    others = "".join(f", != {version}" for version in google_schema.PACKAGES if version != request.param)
    [constraint] = [line for line in TEXT.splitlines() if "version = " in line and "required" not in line]
    (tofu.folder / "main.tf").write_text(TEXT.replace(constraint, f'{constraint.rstrip(chr(34))}{others}"'))
    done = tofu("init", "-backend=false", "-input=false")
    assert done.returncode == 0, done.stderr
    assert f"Installed {HOST}/hashicorp/google v{request.param}" in done.stdout
    return tofu


def test_the_module_is_valid_and_formatted(tofu: Tofu) -> None:
    assert tofu.errors(TEXT) == []
    done = tofu("fmt", "-check", "-diff")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("before", "after", "error", "line"),
    [
        ("uniform_bucket_level_access", "uniform_access", "Unsupported argument", "uniform_access"),
        (LOCATION, "", "Missing required argument", 'resource "google_storage_bucket"'),
        ("_time = 30", '_time = "month"', "Incorrect attribute value type", '_time = "month"'),
        ('"google_storage_bucket"', '"google_storage_buckets"', "Invalid resource type", "google_storage_buckets"),
        (LOCATION, LOCATION.replace("region", "zone"), "Reference to undeclared input variable", "var.zone"),
        ("account.pipeline.email", "account.other.email", "Reference to undeclared resource", "account.other"),
        ("bucket.pipeline.url", "bucket.pipeline.address", "Unsupported attribute", "bucket.pipeline.address"),
        ('"Stages, servers', "google_storage_bucket_iam_member.pipeline.etag #", "Cycle", None),
        ("versioning {", "versioning = {", "Unsupported argument", "versioning = {"),
        ("docker_config {", "docker {", "Unsupported block type", "docker {"),
        (VERSIONING, VERSIONING * 2, "Too many versioning blocks", "versioning {"),
        (CONDITION, "", "Insufficient condition blocks", "lifecycle_rule {"),
        ("    enabled = true\n", "", "Missing required argument", "versioning {"),
        ('format        = "DOCKER"', 'format        = ["DOCKER"]', "Incorrect attribute value type", "format  "),
        ('  project = var.project\n', '  projects = var.project\n', "Unsupported argument", "projects ="),
        ("versioning {", "versioning", "Argument or block definition required", "versioning"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_by_its_line(tofu: Tofu, before: str, after: str, error: str, line: str | None) -> None:
    assert before in TEXT
    text = TEXT.replace(before, after, 1)
    # What follows from a mistake may come before it: nothing else is in a resource whose type nobody knows.
    errors = tofu.errors(text)
    [named, *_] = [one for one in errors if error in (one["summary"] + one["detail"])] or [errors]
    if line is None:
        assert all(name in named["summary"] + named["detail"] for name in ("account.pipeline", "iam_member.pipeline"))
    else:
        assert line in text.splitlines()[named["range"]["start"]["line"] - 1], named


def test_another_layout_is_refused(tofu: Tofu) -> None:
    (tofu.folder / "main.tf").write_text(TEXT.replace('role   = "roles/storage', 'role = "roles/storage'))
    assert tofu("fmt", "-check").returncode != 0


def test_no_other_version_of_the_provider_is_taken(mirror: Path, tmp_path: Path) -> None:
    (tmp_path / "main.tf").write_text(TEXT.replace('">= 6.0', '"< 6.0'))
    done = Tofu(tmp_path, mirror)("init", "-backend=false", "-input=false", "-no-color")
    assert done.returncode != 0
    assert "no available releases match" in " ".join(done.stderr.replace("│", " ").split())
