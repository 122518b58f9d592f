"""Kills ingests: run as `python -m tests.data.crashing FOLDER`, prints one JSON object.

Every file operation below FOLDER (open, mkdir, rename, remove, rmdir and each fsync) is a point to die at. For each
point a child process is killed there with SIGKILL; then another child looks at what is left and ingests again.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import filelock  # noqa: F401 - imported before the forks, so that no child has to
import pandas as pd  # noqa: F401
import pyarrow.csv  # noqa: F401

from bike_pipeline.data.ingest import ingest
from bike_pipeline.data.spans import SpanStore
from bike_pipeline.settings import Settings, load_settings
from tests.data.making import make_rows, to_csv

Version = tuple[int, int]
EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}


def die_at(point: int, folder: str) -> None:
    """Kill this process at its `point`-th file operation below `folder`."""
    left = point

    def count() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in EVENTS and str(arguments[0]).startswith(folder):
            count()

    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        count()
        real_fsync(descriptor)

    os.fsync = fsync
    sys.addaudithook(hook)


def in_child(work: Callable[..., None], *arguments: object) -> int:
    """Return the wait status of a forked child that does `work`."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    status = 1
    try:
        work(*arguments)
        status = 0
    finally:
        if status:
            traceback.print_exc()
        os._exit(status)


def killed(settings: Settings, upload: Path, point: int) -> None:
    """Ingest, and be killed at a point on the way."""
    die_at(point, settings.store_uri)
    ingest(settings, str(upload))


def prepared(settings: Settings, upload: Path) -> None:
    """Ingest what the store holds before."""
    assert ingest(settings, str(upload)).created


def recovered(settings: Settings, upload: Path, before: list[Version], after: list[Version]) -> None:
    """Check that the store is as it was before or after, and that the next ingest brings it to `after`."""
    found = verified(settings)
    assert found in (before, after), found
    assert ingest(settings, str(upload)).created == (found == before)
    assert verified(settings) == after
    aside = Path(settings.store_uri) / ".writing"
    assert not aside.exists() or not list(aside.iterdir())


def verified(settings: Settings) -> list[Version]:
    """Return the versions of the store, each of them verified."""
    store = SpanStore(settings.store_uri)
    return [(v.span, v.version) for v in store.all_versions() if store.verify(v.span, v.version)]


def killed_withdrawing(settings: Settings, point: int) -> None:
    """Withdraw the only version, and be killed at a point on the way."""
    die_at(point, settings.store_uri)
    SpanStore(settings.store_uri).withdraw(1, 1, "it is wrong")


def withdrawn_after_all(settings: Settings) -> None:
    """Check that the version counts as before or no longer, and that the next attempt withdraws it."""
    assert verified(settings) in ([(1, 1)], [])
    store = SpanStore(settings.store_uri)
    assert store.withdraw(1, 1, "it is wrong").reason == "it is wrong"
    assert not store.spans()
    assert not (Path(settings.store_uri) / ".writing").exists()
    store.restore(1, 1)
    assert verified(settings) == [(1, 1)]


def withdrawals(folder: Path, upload: Path) -> int:
    """Kill a withdrawal at every point, and check the store after each; return how many points there are."""
    for point in itertools.count():
        settings = load_settings(None, (f"data.store={folder / 'stores' / f'withdrawal-{point}'}",))
        assert not in_child(prepared, settings, upload)
        status = in_child(killed_withdrawing, settings, point)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            return point
        assert os.WTERMSIG(status) == signal.SIGKILL
        if in_child(withdrawn_after_all, settings):
            raise SystemExit(f"a withdrawal, killed at point {point}: the store did not recover")
    raise AssertionError


def main(folder: Path) -> None:
    """Kill an ingest at every point, and check the store after each."""
    uploads = {name: folder / f"{name}.csv" for name in ("first", "correction")}
    uploads["first"].write_bytes(to_csv(make_rows(days=4)))
    broken = make_rows("2011-01-02", 0.1)[0] | {"hum": "7"}
    uploads["correction"].write_bytes(to_csv([broken, *make_rows("2011-01-02", 1, seed=4)]))
    cases: dict[str, tuple[list[Version], list[Version]]] = {
        "first": ([], [(1, 1)]),
        "correction": ([(1, 1)], [(1, 1), (1, 2)]),
    }
    results = {}
    for name, (before, after) in cases.items():
        for point in itertools.count():
            store = folder / "stores" / f"{name}-{point}"
            settings = load_settings(None, (f"data.store={store}", "data.max_rejected_fraction=0.1"))
            if before and in_child(prepared, settings, uploads["first"]):
                raise SystemExit("the store could not be prepared")
            status = in_child(killed, settings, uploads[name], point)
            if os.WIFEXITED(status):
                assert os.WEXITSTATUS(status) == 0, store
                results[name] = point
                break
            assert os.WTERMSIG(status) == signal.SIGKILL
            if in_child(recovered, settings, uploads[name], before, after):
                raise SystemExit(f"{name}, killed at point {point}: the store did not recover")
            shutil.rmtree(store)
    results["withdrawal"] = withdrawals(folder, uploads["first"])
    print(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
