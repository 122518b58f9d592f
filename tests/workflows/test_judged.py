"""What is said of the workflows before any is executed: by actionlint, ShellCheck, published schemas, rules of ours."""

from __future__ import annotations

import copy
import fnmatch
import json
import os
import re
import subprocess

import jsonschema
import pytest
import yaml

from tests.workflows.conftest import FETCHED, HERE, ROOT, WORKFLOWS, drift_message, tool, uses

pytestmark = FETCHED
ACTIONS = sorted((ROOT / ".github" / "actions").glob("*/action.yml"))
SCRIPTS = sorted((ROOT / ".ci").iterdir())
# The least that each job needs; whoever gives one more right changes this table.
READ, IDENTITY = {"contents": "read"}, {"contents": "read", "id-token": "write", "packages": "read"}
PUSH = IDENTITY | {"packages": "write"}
PERMISSIONS = {
    "ci.yml": {"quick": READ, "test": READ},
    "cd-pipeline.yml": {
        "check": READ,
        "image": IDENTITY | {"packages": "write"},
        "run": IDENTITY | {"packages": "write"},
    },
    "ct-data.yml": {"ingest": IDENTITY, "train": IDENTITY},
    "ct-storage.yml": {"ingest": IDENTITY, "train": IDENTITY},
    "ct-drift.yml": {"validate": READ, "train": IDENTITY},
    "release.yml": {"release": IDENTITY},
}


def read(path):
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    # YAML 1.1 reads the key `on` as true.
    return {"on" if key is True else key: value for key, value in found.items()}


def judge(*command, **options):
    return subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False, **options)


def test_actionlint_finds_nothing():
    environment = {**os.environ, "PATH": f"{os.path.dirname(tool('actionlint'))}{os.pathsep}{os.environ['PATH']}"}
    done = judge(tool("actionlint"), "-verbose", *WORKFLOWS, env=environment)
    assert done.returncode == 0, done.stdout
    # Without ShellCheck on the PATH it would not read what the steps run.
    assert 'Rule "shellcheck" was disabled' not in done.stderr


def test_shellcheck_finds_nothing(tmp_path):
    steps = [step["run"] for path in ACTIONS for step in read(path)["runs"]["steps"] if "run" in step]
    written = [tmp_path / f"{number}.sh" for number in range(len(steps))]
    for path, text in zip(written, steps, strict=True):
        path.write_text(f"#!/bin/bash\nset -eo pipefail\n{text}", encoding="utf-8")
    done = judge(tool("shellcheck"), *SCRIPTS, *written, *(HERE / "programs").glob("make"))
    assert done.returncode == 0, done.stdout


def test_actionlint_and_shellcheck_do_find(tmp_path):
    wrong = tmp_path / "wrong.yml"
    wrong.write_text("on: push\njobs: {a: {runs-on: ubuntu-24.04, steps: [{run: 'echo ${{ github.wrong }}'}]}}\n")
    assert judge(tool("actionlint"), wrong).returncode == 1
    (tmp_path / "wrong.sh").write_text("#!/bin/bash\nrm -rf $1/*\n")
    assert judge(tool("shellcheck"), tmp_path / "wrong.sh").returncode == 1


@pytest.mark.parametrize(
    ("schema", "pattern"),
    [
        ("vendor.github-workflows", ".github/workflows/*.yml"),
        ("vendor.github-actions", ".github/actions/*/action.yml"),
        ("vendor.cloudbuild", "cloudbuild.yaml"),
    ],
)
def test_the_published_schemas_take_the_files(schema, pattern):
    files = sorted(ROOT.glob(pattern))
    assert files
    done = judge(tool("check-jsonschema"), "--builtin-schema", schema, *files)
    assert done.returncode == 0, done.stdout


def test_the_jenkinsfile_is_groovy(tmp_path):
    jars = sorted((ROOT / os.environ["WORKFLOWS"] / "groovy").glob("*.jar"))
    if not jars:
        pytest.skip("`make test-workflows` fetches Groovy where Maven and Java are")
    (tmp_path / "wrong").write_text("pipeline { agent any", encoding="utf-8")
    program = "new GroovyShell().parse(new File(args[0]))"
    for path, code in ((ROOT / "Jenkinsfile", 0), (tmp_path / "wrong", 1)):
        done = judge("java", "-cp", jars[0], "groovy.ui.GroovyMain", "-e", program, path)
        assert done.returncode == code, done.stderr


def test_each_job_has_the_least_rights_and_an_end():
    assert {path.name for path in WORKFLOWS} == set(PERMISSIONS)
    for path in WORKFLOWS:
        workflow = read(path)
        assert workflow["permissions"] == {}
        jobs = workflow["jobs"]
        assert {name: job["permissions"] for name, job in jobs.items()} == PERMISSIONS[path.name]
        assert all(0 < job["timeout-minutes"] <= 360 for job in jobs.values() if "uses" not in job)
        for name, job in jobs.items():
            if "secrets." in json.dumps(job):
                assert job["environment"] in {"kubeflow", "production"}, name


def test_other_repositories_are_named_by_commit_and_told_what_they_know():
    assert len(uses()) >= 10
    for used, inputs in uses():
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", used)
        stand_in = read(HERE / "actions" / used.partition("@")[0].partition("/")[2] / "action.yml")
        assert set(inputs) <= set(stand_in["inputs"])


def test_nothing_from_outside_is_put_into_a_script():
    for path in (*WORKFLOWS, *ACTIONS):
        document = read(path)
        jobs = document["jobs"].values() if "jobs" in document else [document["runs"]]
        for step in (step for job in jobs for step in job.get("steps", ())):
            assert "${{" not in step.get("run", ""), (path.name, step)


def test_each_push_is_checked_by_one_of_two_workflows():
    built = read(ROOT / ".github/workflows/cd-pipeline.yml")["on"]["push"]["paths"]
    first, *passed_over = read(ROOT / ".github/workflows/ci.yml")["on"]["push"]["paths"]
    assert first == "**"
    assert sorted(passed_over) == sorted(f"!{pattern}" for pattern in [*built, "data/incoming/**"])
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    copied = {
        name.rstrip("/")
        for line in re.findall(r"^COPY (?!--)(.+) \S+$", dockerfile, re.MULTILINE)
        for name in line.split()
    }
    # A page for people, and a licence, are in the image and change nothing in it.
    for name in copied - {"README.md", "LICENSE"}:
        assert any(fnmatch.fnmatch(f"{name}/x", pattern) or name == pattern for pattern in built), name


def validate(kind, event, incoming=""):
    environment = {"PATH": os.environ["PATH"], "EVENT": json.dumps(event), "INCOMING": incoming}
    return judge(ROOT / ".ci" / "retraining", "validate", kind, env=environment)


def changed(message):
    """Yield the message with each of its values left out, of another type, or with one more beside it."""

    def walk(value, path):
        yield path
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, item in items:
            yield from walk(item, (*path, key))

    for path in list(walk(message, ())):
        for way in ("missing", "number", "text", "more", "empty"):
            other = copy.deepcopy(message)
            if not path:
                yield (way, path), {**other, "more": 1} if way == "more" else 7
                continue
            *above, last = path
            place = other
            for key in above:
                place = place[key]
            if way == "missing":
                del place[last]
            elif way == "more" and isinstance(place[last], dict):
                place[last]["more"] = 1
            else:
                place[last] = {"number": 7, "text": "text", "more": "more", "empty": ""}[way]
            yield (way, path), other


def test_concept_drift_is_what_its_schema_says():
    schema = json.loads((ROOT / "configs/monitoring/retraining-webhook.schema.json").read_text(encoding="utf-8"))
    judge_of = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    message = drift_message()
    assert judge_of.is_valid(message)
    assert validate("concept-drift", message).stdout == "0123456789abcdef 2026-11-29T04:00:07.123Z\n"
    verdicts = [(name, judge_of.is_valid(other), other) for name, other in changed(message)]
    assert {valid for _, valid, _ in verdicts} == {True, False}
    for name, valid, other in verdicts:
        taken = validate("concept-drift", other).returncode == 0
        assert taken == valid, name


@pytest.mark.parametrize(
    ("address", "incoming", "taken"),
    [
        ("s3://bucket/in/a.csv", "s3://bucket/in", True),
        ("gs://bucket/in/2012/a.csv.gz", "gs://bucket/in/", True),
        ("s3://bucket/in/a.csv", "", False),
        ("s3://bucket/in/a.csv", "s3://", False),
        ("s3://bucket/internal/a.csv", "s3://bucket/in", False),
        ("s3://bucket/in/../other/a.csv", "s3://bucket/in", False),
        ("s3://bucket/in/a.exe", "s3://bucket/in", False),
        ("https://bucket/in/a.csv", "https://bucket/in", False),
        ("s3://bucket/in/a\n--set=x.csv", "s3://bucket/in", False),
        ("/etc/passwd.csv", "/etc", False),
        (["s3://bucket/in/a.csv"], "s3://bucket/in", False),
    ],
)
def test_a_file_in_object_storage_is_taken_from_one_place_only(address, incoming, taken):
    done = validate("storage-changed", {"address": address, "version": "1"}, incoming)
    assert (done.returncode == 0) == taken
    assert done.stdout == (f"{address}\n" if taken else "")


@pytest.mark.parametrize(
    "event", [None, [], {}, {"address": "s3://b/a.csv"}, {"address": "s3://b/a.csv", "version": ""}]
)
def test_an_event_without_what_it_needs_is_refused(event):
    assert validate("storage-changed", event, "s3://b/").returncode == 2


STRANGE = [
    ("docker", "run", "--privileged", "image"),
    (
        "docker",
        "run",
        "--rm",
        "--network",
        "host",
        "--user",
        "0:0",
        "--workdir",
        "/",
        "ghcr.io/a/b:latest",
        "bike-pipeline",
    ),
    ("docker", "push", "--quiet", "ghcr.io/a/b"),
    ("docker", "pull", "--quiet", "ghcr.io/a/b:latest"),
    ("docker", "push", "--all-tags", "ghcr.io/a/b"),
    ("docker", "login", "ghcr.io"),
    ("docker", "tag", "a", "b"),
    ("docker", "build", "--tag", "x", "."),
    ("docker", "image", "inspect", "--format", "{{.Id}}", "x"),
    ("docker", "buildx", "imagetools", "create", "--tag", "ghcr.io/a/b:deployed", "ghcr.io/a/b:1"),
    ("gcloud", "auth", "login"),
    ("gcloud", "auth", "configure-docker", "--quiet", "gcr.io"),
    ("gcloud", "auth", "print-access-token"),
    ("make", "no-such-target"),
]


def test_programs_that_stand_in_refuse_what_they_do_not_know(checkout):
    environment = {**os.environ, "STAND_IN": checkout.stand_in, "STAND_IN_MAKE": "make", "STAND_IN_BIN": "none"}
    for command in STRANGE:
        _refuses(checkout, environment, command)


def _refuses(checkout, environment, command):
    name, *arguments = command
    program = checkout.programs / name
    done = subprocess.run(
        [program, *arguments],
        cwd=checkout.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        input="",
    )
    assert done.returncode != 0


@pytest.mark.parametrize("repository", ["gcr.io/project/bike", "eu.gcr.io/project/bike"])
def test_the_container_registry_of_google_is_refused_in_words(repository):
    done = judge(ROOT / ".ci" / "registry", "login", repository)
    assert done.returncode == 2
    assert "was shut down in March 2025" in done.stderr
    assert "docker.pkg.dev" in done.stderr
