"""Two hundred models of one server: each under its name, none harmed by a broken one, followed by their list."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import pytest
import requests

from bike_pipeline.model_registry import ModelRegistry, layout, model_signature
from bike_pipeline.serving.server import model_versions
from bike_pipeline.serving.statuses import StatusError
from tests.serving.running import row, running_server

# A server loads two hundred models.
pytestmark = pytest.mark.slow
CITIES = [f"city-{number:03d}" for number in range(200)]
BROKEN = CITIES[7]


def scale_of(city: str) -> int:
    return 1 + int(city[-3:]) % 2


def push(base: Path, model: Path, city: str) -> Path:
    record = {"fingerprint": layout.fingerprint(model), "exports_fingerprint": layout.exports_fingerprint(model)}
    registry = ModelRegistry(base / city)
    registry.add(model, 1, record, lambda folder: model_signature.write(folder, {}, None, 1))
    return registry.folder(1)


def listed(path: Path, base: Path, cities: list[str]) -> Path:
    models = "".join(f'config {{ name: "{city}" base_path: "{base / city}" }}\n' for city in cities)
    # As a deployment writes it: never half of it.
    aside = path.with_suffix(".aside")
    aside.write_text(f"model_config_list {{\n{models}}}\n", encoding="utf-8")
    aside.replace(path)
    return path


@pytest.fixture(scope="module")
def fleet(simple_models, tmp_path_factory):
    """A server of all cities, one of them with a damaged export."""
    folder = tmp_path_factory.mktemp("fleet")
    for city in CITIES:
        version = push(folder / "models", simple_models[scale_of(city)], city)
        if city == BROKEN:
            export = next(version.rglob("*.tflite"))
            export.write_bytes(export.read_bytes()[:-8])
    models = listed(folder / "models.config", folder / "models", CITIES)
    settings = (f"serving.server.models_config={models}", "serving.server.poll_seconds=0.1")
    # Few sizes of a batch: LiteRT has an interpreter for each.
    with running_server(
        folder / "models", folder / "workspace", *settings, "serving.server.batching.max_rows=4"
    ) as one:
        yield one, models


def ask(server, city: str) -> requests.Response:
    address = f"http://{server.rest}/v1/models/{city}:predict"
    return requests.post(address, json={"instances": [row(8, 0.5)]}, timeout=60)


def eventually(holds) -> bool:
    until = time.monotonic() + 120
    while not (done := holds()) and time.monotonic() < until:
        time.sleep(0.05)
    return bool(done)


def test_each_answers_under_its_name_and_the_broken_one_says_why_and_harms_none(fleet):
    server, _ = fleet
    assert server.told["models"] == {city: [] if city == BROKEN else [1] for city in CITIES}
    for city in CITIES:
        answer = ask(server, city)
        if city == BROKEN:
            assert answer.status_code == 404
            status = requests.get(f"http://{server.rest}/v1/models/{city}", timeout=60).json()
            (version,) = status["model_version_status"]
            assert version["state"] == "END"
            assert "model.tflite" in version["status"]["error_message"]
        else:
            assert answer.json() == {"predictions": [scale_of(city) * 58.0]}


def test_the_list_is_followed_while_requests_are_answered_and_a_wrong_one_changes_nothing(fleet, simple_models):
    server, models = fleet
    base, asked, failed, stop = server.base, [0], [], threading.Event()

    def go_on_asking() -> None:
        while not stop.is_set():
            for city in CITIES[100:110]:
                answer = ask(server, city)
                asked[0] += 1
                if answer.status_code != 200 or answer.json() != {"predictions": [scale_of(city) * 58.0]}:
                    failed.append(answer.text)

    client = threading.Thread(target=go_on_asking)
    client.start()
    try:
        push(base, simple_models[1], "city-200")
        listed(models, base, [*CITIES[1:], "city-200"])
        assert eventually(lambda: ask(server, "city-200").status_code == 200)
        assert eventually(lambda: ask(server, CITIES[0]).status_code == 404)
        models.write_text("model_config_list { config { name: }", encoding="utf-8")
        assert eventually(lambda: "what can be served goes on serving" in server.log)
        before = asked[0]
        assert eventually(lambda: asked[0] >= before + 20)
    finally:
        stop.set()
        client.join()
    assert failed == []
    assert asked[0] > 20
    assert ask(server, "city-200").json() == {"predictions": [58.0]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no model"),
        ("model_config_list { config { name: }", "cannot be read"),
        ('model_config_list { config { name: "a" base_path: "models" } }', "must be an absolute local folder"),
        (None, "cannot be read"),
    ],
)
def test_a_list_that_is_none_is_refused(tmp_path, text, words):
    path = tmp_path / "models.config"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(StatusError, match=re.escape(words)):
        model_versions.models_in(path)
