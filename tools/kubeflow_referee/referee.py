"""Ask Kubeflow's and Kubernetes' own Go code whether they take what this project writes: `make referee`.

Three judges, each built from the Go module registry at pinned versions, in a folder that is not committed:

- `pipelines`: Kubeflow Pipelines' upload and run creation, for each version in `KFP_VERSIONS`. A dependent module has
  to repeat what their go.mod replaces: their own modules below the root (the registry knows each by the same tag), and
  forks at a version.
  What it makes of a spec is looked at as well: a retry whose longest time is KFP's default would never come.
- `reader`: Go's YAML reader, which KFP's server reads a spec with. It has to read the values that Python's reads.
- `objects`: the Kubernetes API server's code for custom resources, with the definitions that Argo Workflows and
  Kubeflow Trainer ship. It judges the Argo Workflow that `pipelines` makes of a spec, and manifests.

Exit code 0: everything was asked and accepted. 1: something was refused. 3: nothing was refused, but a judge could not
be had (no Go, or the registry has no such module): this is no acceptance. With `--report-absent` that is printed and
ends with 0, for CI, where the luck of a network must not decide.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
KFP = "github.com/kubeflow/pipelines"
# The oldest that is supported, and the newest. KFP's tags carry no "v", so Go resolves them as revisions.
KFP_VERSIONS = ("2.14.4", "2.17.0")
# The oldest Kubeflow Trainer that manifests are for, and the newest.
TRAINER_VERSIONS = ("v2.0.0", "v2.3.0")
# Modules that ship definitions of custom resources: path, version (None: one of Kubeflow Trainer's), files.
DEFINITIONS = (
    ("github.com/argoproj/argo-workflows/v3", "v3.7.1", ("manifests/base/crds/full/argoproj.io_workflows.yaml",)),
    (
        "github.com/kubeflow/trainer/v2",
        None,
        (
            "manifests/base/crds/trainer.kubeflow.org_trainjobs.yaml",
            "manifests/base/crds/trainer.kubeflow.org_trainingruntimes.yaml",
        ),
    ),
)
READER = "Go's YAML reader"
REFUSED, ABSENT = 1, 3


class AbsentError(Exception):
    """A judge cannot be had; the text says why, in one line."""


@dataclass(frozen=True)
class Verdict:
    """What one judge said of one file.

    Attributes:
        judge: who.
        subject: of what.
        result: `accepted`, `refused` or `not asked`.
        reason: what was refused, or why nobody could be asked.
    """

    judge: str
    subject: str
    result: str
    reason: str = ""


class Go:
    """The Go command, with its output, a time limit and nothing of the caller's module settings."""

    def __init__(self, timeout: float) -> None:
        """Find Go.

        Args:
            timeout: seconds for one command.

        Raises:
            AbsentError: there is no Go on the PATH.
        """
        found = shutil.which("go")
        if found is None:
            raise AbsentError("there is no Go on the PATH (Debian: apt install golang; or go.dev/dl)")
        self._program = found
        self._timeout = timeout

    def __call__(self, *arguments: str, folder: Path, mod: str = "mod") -> str:
        """Run `go …` in a folder and return what it prints.

        Raises:
            AbsentError: it failed, or took too long.
        """
        environment = {**os.environ, "GOFLAGS": f"-mod={mod} -buildvcs=false", "GOWORK": "off"}
        try:
            done = subprocess.run(
                [self._program, *arguments],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=self._timeout,
            )
        except subprocess.TimeoutExpired:
            raise AbsentError(f"go {arguments[0]} did not end within {self._timeout:g} s") from None
        if done.returncode:
            raise AbsentError(f"go {' '.join(arguments[:2])}: {_reason(done.stdout, done.stderr)}")
        return done.stdout


def _reason(output: str, errors: str) -> str:
    """Return the line of a failed Go command that says why."""
    try:
        told = json.loads(output).get("Error", "")
    except ValueError:
        told = ""
    lines = [line.strip() for line in (told or errors or output).splitlines() if line.strip()]
    # "go: downloading …" is how it goes, not why it failed.
    lines = [line for line in lines if not line.startswith("go: downloading")] or ["no reason given"]
    return " ".join(lines[:3])


def build_pipelines(go: Go, version: str, build: Path) -> Path:
    """Build the judge `pipelines` for one version of KFP and return the program.

    Raises:
        AbsentError: the registry has no such module, or it does not build.
    """
    folder = build / f"pipelines-{version}"
    program = folder / "pipelines"
    if program.exists():
        return program
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(HERE / "pipelines" / "main.go", folder)
    go("mod", "init", "bike-pipeline/referee", folder=folder)
    root = json.loads(go("mod", "download", "-json", f"{KFP}@{version}", folder=folder))
    told = json.loads(go("mod", "edit", "-json", root["GoMod"], folder=folder))
    for replaced in told.get("Replace") or ():
        if replaced["New"].get("Version"):
            new = f"{replaced['New']['Path']}@{replaced['New']['Version']}"
            go("mod", "edit", f"-replace={_at(replaced['Old'])}={new}", folder=folder)
        else:
            # A folder beside their go.mod: a module of its own in the registry, under the same tag.
            path = replaced["Old"]["Path"]
            own = json.loads(go("mod", "download", "-json", f"{path}@{version}", folder=folder))
            go("mod", "edit", f"-replace={path}={path}@{own['Version']}", folder=folder)
    go("mod", "edit", f"-require={KFP}@{root['Version']}", folder=folder)
    # With -mod=mod, building adds what is needed and nothing for tests: `go mod tidy` would fetch those too.
    go("build", "-o", str(program), ".", folder=folder)
    return program


def _at(module: dict[str, Any]) -> str:
    return f"{module['Path']}@{module['Version']}" if module.get("Version") else str(module["Path"])


def build_reader(go: Go, build: Path) -> Path:
    """Build the judge `reader` and return the program.

    Raises:
        AbsentError: the registry has no such module, or it does not build.
    """
    program = build / "reader"
    build.mkdir(parents=True, exist_ok=True)
    go("build", "-o", str(program), ".", folder=HERE / "reader", mod="readonly")
    return program


def read_alike(program: Path, spec: Path) -> Verdict:
    """Return whether Go reads the values of a spec that Python reads.

    Raises:
        AbsentError: the judge could not work: that is no verdict.
    """
    verdict, output = judge([str(program)], READER, spec)
    if verdict.result == "refused":
        return verdict
    found = [json.loads(line) for line in output.splitlines()]
    place = _difference(list(yaml.safe_load_all(spec.read_text(encoding="utf-8"))), found)
    return Verdict(READER, spec.name, "refused", f"Go reads another value at {place}") if place else verdict


def _difference(here: Any, there: Any, place: str = "") -> str:
    """Return where two plain values differ first; "" where they are the same."""
    if type(here) is type(there) and isinstance(here, dict) and set(here) == set(there):
        return next(filter(None, (_difference(here[key], there[key], f"{place}.{key}") for key in here)), "")
    if type(here) is type(there) and isinstance(here, list) and len(here) == len(there):
        pairs = enumerate(zip(here, there, strict=True))
        return next(filter(None, (_difference(a, b, f"{place}[{n}]") for n, (a, b) in pairs)), "")
    # A number is one kind to JSON, and true is none.
    same = here == there and isinstance(here, bool) == isinstance(there, bool)
    return "" if same else place or "the top"


def lost_retries(workflow: str) -> list[str]:
    """Return the tasks of an Argo Workflow that KFP made, as JSON, whose retries would never come.

    KFP hands a task's retry policy over as arguments of its template, whose defaults are "0".
    """
    lost = []
    for template in json.loads(workflow).get("spec", {}).get("templates", ()):
        for task in template.get("dag", {}).get("tasks", ()):
            given = {one["name"]: one.get("value") for one in task.get("arguments", {}).get("parameters", ())}
            longest = str(given.get("retry-backoff-max-duration", "0"))
            if given.get("retry-max-count", "0") != "0" and longest == "0":
                lost.append(task["name"])
    return lost


def build_objects(go: Go, build: Path, trainer: str) -> list[str]:
    """Build the judge `objects` and return the command with the definitions that it goes by.

    Args:
        go: the Go command.
        build: where the program is put.
        trainer: version of Kubeflow Trainer.

    Raises:
        AbsentError: a module cannot be had, or it does not build.
    """
    source = HERE / "objects"
    program = build / "objects"
    build.mkdir(parents=True, exist_ok=True)
    go("build", "-o", str(program), ".", folder=source, mod="readonly")
    command = [str(program)]
    for module, version, files in DEFINITIONS:
        told = json.loads(go("mod", "download", "-json", f"{module}@{version or trainer}", folder=source))
        for file in files:
            command += ["-crd", str(Path(told["Dir"]) / file)]
    return command


def judge(command: Sequence[str], name: str, subject: Path) -> tuple[Verdict, str]:
    """Return what a judge says of a file, and what it printed.

    Raises:
        AbsentError: the judge could not work: that is no verdict.
    """
    done = subprocess.run([*command, str(subject)], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return Verdict(name, subject.name, "accepted"), done.stdout
    if done.returncode == 1:
        lines = [line for line in done.stdout.splitlines() if not line.endswith(": accepted")]
        return Verdict(name, subject.name, "refused", "; ".join(lines)), done.stdout
    raise AbsentError(f"{Path(command[0]).name} stopped: {' '.join(done.stderr.split())[-300:]}")


def session(
    specs: Sequence[Path], manifests: Sequence[Path], versions: Sequence[str], build: Path, timeout: float
) -> list[Verdict]:
    """Ask every judge about every file; one that cannot be had gives a verdict `not asked`."""
    verdicts: list[Verdict] = []
    api_servers = {version: f"API server, Trainer {version}" for version in TRAINER_VERSIONS}
    try:
        go = Go(timeout)
    except AbsentError as error:
        judges = [READER, *(f"Kubeflow Pipelines {version}" for version in versions)] if specs else []
        judges += api_servers.values() if manifests else []
        return [Verdict(name, "-", "not asked", str(error)) for name in judges]
    if specs:
        try:
            reader = build_reader(go, build)
            verdicts.extend(read_alike(reader, spec) for spec in specs)
        except AbsentError as error:
            verdicts.append(Verdict(READER, "-", "not asked", str(error)))
    workflows: list[Path] = []
    for version in versions if specs else ():
        name = f"Kubeflow Pipelines {version}"
        try:
            program = build_pipelines(go, version, build)
            for spec in specs:
                verdict, output = judge([str(program)], name, spec)
                if verdict.result == "accepted" and (lost := lost_retries(output)):
                    reason = f"no retry of {', '.join(lost)} would ever come (Max duration limit exceeded)"
                    verdict = Verdict(name, spec.name, "refused", reason)
                verdicts.append(verdict)
                if verdict.result == "accepted":
                    workflow = build / f"{spec.stem}-{version}.workflow.json"
                    workflow.write_text(output, encoding="utf-8")
                    workflows.append(workflow)
        except AbsentError as error:
            verdicts.append(Verdict(name, "-", "not asked", str(error)))
    for version, name in api_servers.items() if manifests or workflows else ():
        try:
            command = build_objects(go, build, version)
            verdicts.extend(judge(command, name, subject)[0] for subject in [*workflows, *manifests])
        except AbsentError as error:
            verdicts.append(Verdict(name, "-", "not asked", str(error)))
    return verdicts


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="referee", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--spec", type=Path, action="append", help="a compiled spec; the golden ones by default")
    parser.add_argument("--manifest", type=Path, action="append", help="a manifest; configs/kubernetes by default")
    parser.add_argument("--version", action="append", help=f"of KFP; {' and '.join(KFP_VERSIONS)} by default")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "referee", help="where it is built")
    parser.add_argument("--timeout", type=float, default=1200, help="seconds for one Go command")
    parser.add_argument("--report-absent", action="store_true", help="end with 0 where a judge cannot be had")
    options = parser.parse_args(arguments)
    given = options.spec or options.manifest
    golden = sorted((ROOT / "tests" / "runners" / "kubeflow" / "golden").glob("*.yaml"))
    verdicts = session(
        options.spec or ([] if given else golden),
        options.manifest or ([] if given else custom_resources(ROOT / "configs" / "kubernetes")),
        options.version or KFP_VERSIONS,
        options.build,
        options.timeout,
    )
    for verdict in verdicts:
        print(
            f"{verdict.judge:26s} {verdict.subject:34s} {verdict.result}{': ' * bool(verdict.reason)}{verdict.reason}"
        )
    if any(verdict.result == "refused" for verdict in verdicts):
        return REFUSED
    if not verdicts or any(verdict.result == "not asked" for verdict in verdicts):
        print("referee: not everything was asked, so this is no acceptance", file=sys.stderr)
        return 0 if options.report_absent else ABSENT
    return 0


def custom_resources(folder: Path) -> list[Path]:
    """Return the manifests of a folder that hold kinds of Argo or Kubeflow Trainer."""
    groups = ("argoproj.io/", "trainer.kubeflow.org/")
    return [
        path
        for path in sorted(folder.rglob("*.yaml"))
        if any(f"apiVersion: {group}" in path.read_text(encoding="utf-8") for group in groups)
    ]


if __name__ == "__main__":
    sys.exit(main())
