"""Fetch what `make test-cluster` starts: Kubernetes' own servers, Flagger, kustomize and Kyverno, in `.cluster-tools/`.

Go programs are built from the Go module registry; the go.mod and go.sum of each folder of `tools/go_modules/` pin every
module that goes into them. The definitions of custom resources are files of such modules, whose hashes stand here.
Nothing is installed on the machine, and what is there is kept. Standard library only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import google_schema

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".cluster-tools"
MODULES = ROOT / "tools" / "go_modules"
KUBERNETES = "v1.36.3"
# By program, the folder of `MODULES` that it is built in, and its package.
PROGRAMS = {
    "etcd": ("kubernetes", "go.etcd.io/etcd/server/v3"),
    "kube-apiserver": ("kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver"),
    "kube-controller-manager": ("kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    "kube-scheduler": ("kubernetes", "k8s.io/kubernetes/cmd/kube-scheduler"),
    "kwok": ("kubernetes", "sigs.k8s.io/kwok/cmd/kwok"),
    "kustomize": ("kubernetes", "sigs.k8s.io/kustomize/kustomize/v5"),
    "prometheus-adapter": ("prometheus-adapter", "sigs.k8s.io/prometheus-adapter/cmd/adapter"),
    "tofu": ("opentofu", "github.com/opentofu/opentofu/cmd/tofu"),
    "google-schema": ("google-schema", "."),
    "flagger": ("flagger", "github.com/fluxcd/flagger/cmd/flagger"),
    "kubectl-kyverno": ("kyverno", "github.com/kyverno/kyverno/cmd/cli/kubectl-kyverno"),
}
# Stamped into a release: Flagger asks the server for its version, OpenTofu compares its own to `required_version`.
STAMPS = {
    "kubernetes": f"-X k8s.io/component-base/version.gitVersion={KUBERNETES}",
    "opentofu": "-X github.com/opentofu/opentofu/version.dev=no",
}
# Modules that ship definitions of custom resources, and what kwok says of its pods: path and version, hash, files.
DEFINITIONS = (
    (
        "sigs.k8s.io/kwok@v0.8.0",
        "h1:OTIOTwgROqPMovcTwxICx2eYQ4AwLpSx5EpjbDKF4SQ=",
        ("kustomize/stage/node/fast/node-*.yaml", "kustomize/stage/pod/fast/pod-*.yaml"),
    ),
    (
        "sigs.k8s.io/gateway-api@v1.6.3",
        "h1:lKpJa5bGlraC/QeACvCpsHLdmO6y0iKfzVl6gzaFEYc=",
        ("config/crd/standard/gateway.networking.k8s.io_*routes.yaml", "config/crd/standard/*_gateways.yaml"),
    ),
    (
        "github.com/kserve/kserve@v0.20.0",
        "h1:Bs7HxmGV4KFqqptDcWseKv+mwD4YOYHJWcuVgPG2Gug=",
        # `minimal` takes any field.
        ("config/crd/full/serving.kserve.io_inferenceservices.yaml",),
    ),
    (
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
        (
            "example/prometheus-operator-crd/*_prometheusrules.yaml",
            "example/prometheus-operator-crd/*_servicemonitors.yaml",
        ),
    ),
    (
        "github.com/kubeflow/trainer/v2@v2.3.0",
        "h1:Je+e7zvTLzB4qW09J1fB7pZrqvPtWuGng2NqdN5p5QU=",
        ("manifests/base/crds/*_trainjobs.yaml", "manifests/base/crds/*_trainingruntimes.yaml"),
    ),
    (
        "github.com/fluxcd/flagger@v1.36.1",
        "h1:X2PumtNwZz9YSGaOtZLFm2zAKLgHhFkbNv8beg7ifyc=",
        ("artifacts/flagger/crd.yaml",),
    ),
    (
        "sigs.k8s.io/prometheus-adapter@v0.12.0",
        "h1:e29A6BIwA/NKxPZeuamBMHJsvz0sSUXTb92Obg7RMV4=",
        # Its account and its rights.
        tuple(
            f"deploy/manifests/{name}.yaml"
            for name in ("api-service", "cluster-role*", "config-map", "role-binding-auth-reader", "service*")
        ),
    ),
)


def find(program: str, folder: Path = FOLDER) -> Path | None:
    """Return a program's path, or None where it is not there.

    Args:
        program: a key of `PROGRAMS`.
        folder: where `main` puts them.
    """
    built = folder / program
    return built if os.access(built, os.X_OK) else None


def _go(*arguments: str, folder: Path, seconds: float = 3600) -> tuple[str, str]:
    """Run `go …`; return what it prints, and "" or why it failed."""
    environment = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "-buildvcs=false"}
    try:
        done = subprocess.run(
            ["go", *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
    except FileNotFoundError:
        return "", "there is no Go on the PATH (1.26 or newer; go.dev/dl)"
    except subprocess.TimeoutExpired:
        return "", f"go {arguments[0]} did not end within {seconds:g} s"
    lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("go: downloading")]
    return done.stdout, "" if done.returncode == 0 else " ".join(lines[:3]) or f"go ended with {done.returncode}"


def build(program: str, folder: Path) -> str:
    """Build a program of `PROGRAMS` with the modules that its go.sum pins; return "" or why it is not there."""
    module, package = PROGRAMS[program]
    with tempfile.TemporaryDirectory(dir=folder) as made:
        target = Path(made) / program
        _, reason = _go(
            "build",
            "-mod=readonly",
            "-trimpath",
            f"-ldflags=-s -w {STAMPS.get(module, '')}",
            "-o",
            str(target),
            package,
            folder=MODULES / module,
        )
        if not reason:
            target.replace(folder / program)
    return reason


def fetch_definitions(module: str, pinned: str, patterns: tuple[str, ...], folder: Path) -> str:
    """Copy a module's definitions into `folder`; return "" or why they are not there."""
    output, reason = _go("mod", "download", "-json", module, folder=folder)
    if reason:
        return reason
    downloaded = json.loads(output)
    if downloaded["Sum"] != pinned:
        return f"the module has the hash {downloaded['Sum']}, and {pinned} is pinned"
    files = [path for pattern in patterns for path in sorted(Path(downloaded["Dir"]).glob(pattern))]
    if len(files) < len(patterns):
        return f"it has no {' or no '.join(patterns)}"
    for path in files:
        (folder / path.name).write_bytes(path.read_bytes())
    return ""


def main(arguments: list[str]) -> int:
    """Fetch what is missing, or of that what is named; return 1 where something is not to be had."""
    definitions = FOLDER / "definitions"
    definitions.mkdir(parents=True, exist_ok=True)
    missing = 0
    for name in arguments or PROGRAMS:
        reason = ""
        if find(name) is None:
            print(f"cluster tools: {name}: building it, which takes minutes", flush=True)
            reason = build(name, FOLDER)
        missing += bool(reason)
        print(f"cluster tools: {name}: {f'not to be had here ({reason})' if reason else find(name)}", flush=True)
    for module, pinned, patterns in DEFINITIONS:
        marker = definitions / f"{module.replace('/', '_')}.fetched"
        reason = "" if marker.exists() else fetch_definitions(module, pinned, patterns, definitions)
        missing += bool(reason)
        if reason:
            print(f"cluster tools: definitions of {module}: not to be had here ({reason})", flush=True)
        else:
            marker.touch()
    for version in google_schema.PACKAGES:
        schema = FOLDER / f"google-{version}.json"
        reason = "" if schema.exists() else google_schema.fetch(version, FOLDER)
        missing += bool(reason)
        print(f"cluster tools: schema of Google's provider {version}: {reason or schema}", flush=True)
    if not missing and all(map(find, PROGRAMS)):
        # What CI looks for.
        (FOLDER / "complete").touch()
    return min(missing, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
