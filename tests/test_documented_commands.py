"""Every command line of the README and of docs/ is one that the program understands, with settings that it takes.

Those that can run on a prepared workspace are run by `tests/end_to_end/test_documented_commands.py`.
"""

from __future__ import annotations

import re
import shlex
import subprocess

import click
import pytest

from bike_pipeline import cli
from bike_pipeline.settings import load_settings
from tests.documented import PAGES, ROOT, Typed, settings_files, typed

COMMANDS = sorted(set(typed()), key=str)
# Programs that are not ours: what they are told is not checked here.
NOT_OURS = {
    "kubectl": "needs a cluster; its manifests are checked by tests/test_kubernetes_manifests.py",
    "docker": "needs a container engine; compose.yaml is checked by tests/rollout/test_configuration.py",
    "curl": "its answer is checked by tests/end_to_end/test_documented_commands.py",
    "model_signing": "run by tests/model_registry/test_model_signing_tool.py in an environment of its own",
    "python": "the edge bundle's own program; run by tests/end_to_end/test_edge_of_the_story.py",
    "bike-edge": "on a device; run by tests/end_to_end/test_edge_of_the_story.py",
    "dvc": "run by tests/tracking/test_servers.py in an environment of its own",
    "git": "clones over the network",
    "export": "sets a variable of the shell",
    "source": "the shell's own",
    ".venv/bin/pre-commit": "writes into the checkout; its hooks are checked by tests/test_setup_targets.py",
}
# Within a sentence a name often stands for what a reader puts there, and the sign of an ellipsis for the rest.
STAND_INS = {
    "…": "",
    "[VERSION]": "",
    "[--to VERSION]": "",
    "[MODEL]": "",
    "[--dry-run]": "--dry-run",
    "keep-blessed N": "keep-blessed 2",
    "keep-days D": "keep-days 14",
    "SPAN/VERSION": "1/1",
    "--config FILE": "--config configs/beam-flink.yaml",
}
# Names that a page calls a group of commands by, for which there is nothing to parse.
UNFINISHED = {"bike-pipeline --debug"}


def ours(command: Typed) -> list[str]:
    """Return the arguments of our own program, placeholders filled in."""
    text = command.text
    for placeholder, meant in STAND_INS.items():
        text = text.replace(placeholder, meant)
    words = shlex.split(re.split(r"\s[|>]", text)[0])
    return words[words.index("bike-pipeline") + 1 :]


def named_files(folder):
    """Write the settings files that pages show under a name, and those that they leave to the reader."""
    (folder / "configs").symlink_to(ROOT / "configs")
    (folder / "my.yaml").write_text("training: {dropout: 0.1}\n", encoding="utf-8")
    for _, name, text in settings_files():
        if name:
            (folder / name.rpartition("/")[2]).write_text(text, encoding="utf-8")


def parsed(arguments):
    """Return the command of ours that these arguments call and its parameters, as click reads them, without a call."""
    command, parent = cli.command, None
    while isinstance(command, click.Group):
        try:
            parent = command.make_context("bike-pipeline", list(arguments), parent=parent)
        except click.exceptions.NoArgsIsHelpError:
            return command, {}
        # What a group leaves to the command below: click's two lists, the first without a public name.
        name, *arguments = [*getattr(parent, "_protected_args", ()), *parent.args]
        command = command.get_command(parent, name)
        assert command is not None, name
    return command, command.make_context(command.name, list(arguments), parent=parent).params


def test_the_pages_hold_commands_of_every_kind():
    assert len([command for command in COMMANDS if command.in_block]) > 80
    assert len(PAGES) > 20
    assert {command.words[0] for command in COMMANDS if command.in_block} >= {
        "bike-pipeline",
        "make",
        "curl",
        "model_signing",
    }


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_documented_command_is_understood_with_its_settings(command, tmp_path, monkeypatch):
    program = next(word for word in command.words if "=" not in word or word.startswith("-"))
    if program in NOT_OURS or command.text in UNFINISHED or command.text.strip("… ") in UNFINISHED:
        return
    named_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    if program == "make":
        a_target_is_there(command)
        return
    arguments = [word for word in ours(command) if word != "--help"]
    _, parameters = parsed(arguments)
    config = parameters.get("config")
    if config and not (tmp_path / config).exists():
        config = tmp_path / config.rpartition("/")[2]
    load_settings(config, tuple(parameters.get("assignments") or ()))


def a_target_is_there(command):
    words = command.words[command.words.index("make") + 1 :]
    targets = [word for word in words if "=" not in word]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in targets:
        assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), target
    given = shlex.split(next((word.partition("=")[2] for word in words if word.startswith("ARGS=")), ""))
    if targets[0] in ("flink", "spark", "prism"):
        # The recipe hands them to tools/job_servers.py, which takes --config and --set and nothing else.
        assert {word for word in given if word.startswith("--")} <= {"--set", "--config"}
        load_settings(
            None, tuple(value for name, value in zip(given[::2], given[1::2], strict=True) if name == "--set")
        )


@pytest.mark.parametrize(("place", "name", "text"), list(settings_files()), ids=lambda value: value[:40].split("\n")[0])
def test_documented_settings_are_taken(place, name, text, tmp_path):
    (tmp_path / "shown.yaml").write_text(text, encoding="utf-8")
    load_settings(tmp_path / "shown.yaml")


def test_the_documented_flink_is_the_one_that_is_fetched():
    """The recipe and the tool it calls agree about what `make flink ARGS=…` means."""
    (command,) = {found.text for found in COMMANDS if found.text.startswith("make flink ARGS=")}
    dry = subprocess.run(
        ["make", "-n", *shlex.split(command)[1:]], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    (recipe,) = [line for line in dry.splitlines() if "job_servers.py" in line]
    words = shlex.split(recipe)
    assignments = tuple(words[place + 1] for place, word in enumerate(words) if word == "--set")
    beam = load_settings(None, assignments).beam
    assert (beam.job_server.version, beam.flink.version) == ("2.75.0", "1.20")
