"""A serving base path on object storage: whole versions or none, whatever dies in between."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from bike_pipeline.errors import BusyError, ModelError, StorageError
from bike_pipeline.model_registry import (
    ModelRegistry,
    deployment,
    is_intact,
    layout,
    model_signature,
    registry,
    verification,
)
from bike_pipeline.settings import load_settings
from bike_pipeline.storage import remote_files
from bike_pipeline.storage.files import open_files
from bike_pipeline.storage.remote_files import RemoteFiles
from tests.rollout.storages import STORAGES


@pytest.fixture(scope="module", params=sorted(STORAGES))
def storage(request):
    """The address of an empty bucket's folder."""
    with pytest.MonkeyPatch.context() as patch, STORAGES[request.param](patch) as address:
        yield address


@pytest.fixture
def base(storage, request, tmp_path, monkeypatch):
    """A base path of its own, and a cache of its own."""
    monkeypatch.setenv(registry.CACHE_VARIABLE, str(tmp_path / "cache"))
    return f"{storage}/{request.node.originalname}/bike_demand"


@pytest.fixture
def model(tmp_path):
    """What a model's folder looks like."""
    folder = tmp_path / "model"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "data").write_bytes(b"weights")
    (folder / "assets.extra").mkdir()
    (folder / "assets.extra" / "note").write_bytes(b"")
    return folder


def push(base, model, *versions):
    fingerprint = layout.fingerprint(model)
    for version in versions:
        record = {"model_id": version, "fingerprint": fingerprint}
        ModelRegistry(base).add(
            model, version, record, lambda folder, v=version: model_signature.write(folder, {}, None, v)
        )


def names(base):
    """Return everything below a base path."""
    files = open_files(base)
    files._fs.invalidate_cache()
    return sorted(str(path)[len(files._root) + 1 :] for path in files._fs.find(files._root))


def test_a_pushed_version_is_read_back_from_there(base, model):
    push(base, model, 17)
    assert ModelRegistry(base).versions() == [17]
    fingerprint = layout.fingerprint(model)
    assert ModelRegistry(base).push_record(17) == {"model_id": 17, "fingerprint": fingerprint}
    folder = ModelRegistry(base).uri(17)
    assert ModelRegistry(base).fingerprint(17) == fingerprint
    assert is_intact(folder, fingerprint)
    assert not is_intact(folder, "another")
    assert not is_intact(ModelRegistry(base).uri(18), fingerprint)
    local = ModelRegistry(base).folder(17)
    assert (local / "variables" / "data").read_bytes() == b"weights"
    assert local.name == "17"
    assert {check.name for check in verification.checks(local, {}) if not check.passed} == {"signature"} | {
        check.name for check in verification.checks(local, {}) if check.name.startswith("evidence")
    }


def test_the_file_that_makes_a_version_is_written_last(base, model, monkeypatch):
    written = []
    for name in ("_put", "_create"):
        write = getattr(RemoteFiles, name)
        monkeypatch.setattr(
            RemoteFiles,
            name,
            lambda self, path, content, write=write: (written.append(path), write(self, path, content)),
        )
    push(base, model, 4)
    assert written[-1] == "4/saved_model.pb"
    assert {"4/push.json", "4/evidence.json", "4/model.sig", "4/variables/data"} <= set(written[:-1])


def test_an_upload_that_dies_is_absent_and_the_next_push_clears_it_away(base, model, monkeypatch):
    push(base, model, 1)
    create = RemoteFiles._create

    def dying(self, path, content):
        if path.endswith("saved_model.pb"):
            raise KeyboardInterrupt
        create(self, path, content)

    with monkeypatch.context() as broken:
        broken.setattr(RemoteFiles, "_create", dying)
        # A process that is killed does not clean up after itself.
        broken.setattr(RemoteFiles, "_drop_marker", lambda self: None)
        with pytest.raises(KeyboardInterrupt):
            push(base, model, 2)
    assert "2/push.json" in names(base)
    assert ModelRegistry(base).versions() == [1]
    assert ModelRegistry(base).serving() == 1
    # The emulator of Google's storage does not look at the precondition that the marker is not there.
    if base.startswith("s3://"):
        with pytest.raises(BusyError, match="process"):
            push(base, model, 3)
    monkeypatch.setattr(remote_files, "MARKER_LIFETIME", remote_files.MARKER_LIFETIME * -1)
    push(base, model, 3)
    assert ModelRegistry(base).versions() == [1, 3]
    assert not [name for name in names(base) if name.startswith("2/") or "writing" in name]


def test_a_version_without_its_push_record_is_absent(base, model):
    push(base, model, 1, 2)
    open_files(base).remove("2/push.json")
    assert ModelRegistry(base).versions() == [1]
    assert ModelRegistry(base).push_record(2) is None
    with pytest.raises(StorageError, match="not there"):
        ModelRegistry(base).folder(2)


def test_a_version_that_is_there_is_never_overwritten(base, model):
    push(base, model, 1)
    before = names(base)
    (model / "saved_model.pb").write_bytes(b"another graph")
    with pytest.raises(StorageError, match="there already"):
        push(base, model, 1)
    assert names(base) == before
    assert open_files(base).read("1/saved_model.pb") == b"graph"


def test_what_was_fetched_is_fetched_once_and_checked(base, model, monkeypatch):
    push(base, model, 1)
    local = ModelRegistry(base).folder(1)
    with monkeypatch.context() as watched:
        watched.setattr(RemoteFiles, "download", lambda *_: pytest.fail("it was there"))
        assert ModelRegistry(base).folder(1) == local
    # A local copy that was damaged is fetched again.
    (local / "variables" / "data").write_bytes(b"somebody else's")
    assert (ModelRegistry(base).folder(1) / "variables" / "data").read_bytes() == b"weights"


def test_a_fresh_copy_is_what_is_there_now(base, model):
    push(base, model, 1)
    local = ModelRegistry(base).folder(1)
    open_files(base)._put("1/variables/data", b"changed there")
    assert (ModelRegistry(base).folder(1, fresh=True) / "variables" / "data").read_bytes() == b"changed there"
    assert not is_intact(ModelRegistry(base).uri(1), layout.fingerprint(model))
    failed = [check.detail for check in verification.checks(local, {}) if check.name == "files"]
    assert failed == ["variables/data was changed"]


def test_two_that_fetch_at_once_get_the_same(base, model):
    push(base, model, 1)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: ModelRegistry(base).folder(1), range(4)))
    assert len(set(found)) == 1
    assert is_intact(found[0], layout.fingerprint(model))


def test_promotion_and_rollback_are_kept_there(base, model):
    ModelRegistry(base).begin()
    push(base, model, 1, 2)
    assert ModelRegistry(base).serving() is None
    for version in (1, 2):
        ModelRegistry(base).set_validated(version, passed=True, reason="")
        ModelRegistry(base).promote(version)
    ModelRegistry(base).rollback(reason="as it was")
    assert (ModelRegistry(base).serving(), dict(ModelRegistry(base).deployment().labels)) == (1, {"stable": 1})
    assert [change.action for change in ModelRegistry(base).history()] == [
        "begin", "validate", "promote", "validate", "promote", "rollback",
    ]  # fmt: skip
    assert {deployment.STATE_FILE, deployment.AUDIT_FILE} <= set(names(base))
    lines = open_files(base).read(deployment.AUDIT_FILE).splitlines()
    assert [json.loads(line)["revision"] for line in lines] == [1, 2, 3, 4, 5, 6]
    # A version whose files were changed there is not gone back to.
    open_files(base)._put("2/variables/data", b"changed there")
    with pytest.raises(ModelError, match="was changed"):
        ModelRegistry(base).promote(2)


def test_the_settings_take_addresses_of_object_storage(storage):
    settings = load_settings(assignments=(f"serving.base_path={storage}",))
    assert settings.serving_path == f"{storage}/bike_demand"
