"""Continuous training: watch for changes, run for each of them once, and tell what happened and why not."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline.errors import BusyError, ModelError, ServerError

if TYPE_CHECKING:
    from bike_pipeline.retraining.events import RecordedEvent, Run
    from bike_pipeline.retraining.ledger import Ledger
    from bike_pipeline.retraining.loop import Judged, Loop
    from bike_pipeline.retraining.uploads import Uploads
    from bike_pipeline.settings import Settings


# The longest pause between two tries while another process holds the workspace.
_MOST_BUSY_SECONDS = 60.0


def open_ledger(settings: Settings) -> Ledger:
    """Return the ledger of a workspace; it is made where it is not there."""
    from bike_pipeline.retraining.ledger import Ledger
    from bike_pipeline.retraining.ledger_tables import of_file

    return Ledger(of_file(settings.retraining_path / "ledger.sqlite"))


def uploads_of(settings: Settings) -> Uploads:
    """Return where uploads wait for their run."""
    from bike_pipeline.retraining.uploads import Uploads

    return Uploads(settings.retraining_path / "uploads")


class PipelineExecutor:
    """Does for the loop what people do with `data ingest`, `run` and `promote`; see `retraining.loop.Executor`."""

    def __init__(self, settings: Settings, finished: Callable[[str, str], None] = lambda _stage, _state: None) -> None:
        """Work with these settings; `finished` is called with the name and the state of each stage that ends."""
        self._settings, self._finished, self._uploads = settings, finished, uploads_of(settings)

    def ingest(self, event: RecordedEvent, still: Callable[[], None]) -> Mapping[str, Any]:
        from bike_pipeline.use_cases.data import ingest

        version = ingest(self._settings, self._uploads.check(event.event), still=still).version
        return {"span": version.span, "version": version.version, "rows": version.manifest.rows.total}

    def train(self, run: Run, trained: Callable[[], None]) -> Judged:  # noqa: ARG002 (a cluster's run has a name of it)
        from bike_pipeline.retraining.loop import Judged
        from bike_pipeline.stages import Stage
        from bike_pipeline.use_cases.retraining_run import run_apart

        def finished(stage: str, state: str) -> None:
            self._finished(stage, state)
            if stage == Stage.TRAINER and state != "failed":
                trained()

        # What it pushes is promoted here, after that is in the ledger.
        promotion = self._settings.serving.promotion.model_copy(update={"automatic": False})
        serving = self._settings.serving.model_copy(update={"promotion": promotion})
        settings = self._settings.model_copy(update={"serving": serving})
        made = run_apart(settings, self._settings.retraining.runner, finished)
        facts = {"cpu_seconds": made["cpu_seconds"]}
        return Judged(made["run_id"], made["pushed_version"], made["why"], facts)

    def brought(self, events: Sequence[RecordedEvent]) -> list[tuple[int, int]]:
        from bike_pipeline.use_cases.data import versions

        if not events:
            return []
        uploads = {str(Path(one.event.upload).absolute()) for one in events}
        found = (one for one in versions(self._settings) if one.manifest.source.location in uploads)
        return [(one.span, one.version) for one in found]

    def withdraw(self, span: int, version: int, why: str) -> None:
        from bike_pipeline.use_cases.data import withdraw

        if (span, version) not in _learnt_from(self._settings):
            withdraw(self._settings, span, version, why)

    def promote(self, run: Run, version: int) -> str:
        from bike_pipeline.model_registry import ModelRegistry
        from bike_pipeline.model_registry.deployment import REFUSED
        from bike_pipeline.rollout.promotion import RolloutTargets, after_push

        path = self._settings.serving_path
        targets = RolloutTargets.of(self._settings)
        try:
            why_not = after_push(path, version, targets, f"run {run.number}: {run.reason}")
            if why_not and targets.promotion.automatic:
                raise ModelError(why_not, where=f"version {version}", fix=f"`bike-pipeline promote {version}`")
            return why_not
        except ServerError as error:
            deployment = ModelRegistry(path).deployment()
            if deployment is not None and deployment.status(version) == REFUSED:
                raise ModelError(error.what, where=error.where, fix=error.fix) from error
            raise

    def serves(self, version: int) -> bool:
        from bike_pipeline.model_registry import ModelRegistry
        from bike_pipeline.model_registry.deployment import PROMOTED, REPLACED, ROLLED_BACK

        deployment = ModelRegistry(self._settings.serving_path).deployment()
        return deployment is not None and deployment.status(version) in (PROMOTED, REPLACED, ROLLED_BACK)

    def ended(self, run: Run, events: Sequence[RecordedEvent]) -> None:  # noqa: ARG002
        from bike_pipeline.retraining.events import State

        for one in events:
            # What was refused or failed can be tried again.
            if one.state is State.PROMOTED:
                self._uploads.drop(one.event)


def _learnt_from(settings: Settings) -> set[tuple[int, int]]:
    """Return the spans and versions that pushed models were trained on, which they may serve with."""
    from bike_pipeline.lineage.queries.evidence import window_of
    from bike_pipeline.use_cases.lineage import lineage_of

    lineage = lineage_of(settings)
    windows = (window_of(lineage.trained_on(push.model_id)) for push in lineage.pushes())
    return {(int(entry["span"]), int(entry["version"])) for window in windows for entry in window}


def _loop(settings: Settings, ledger: Ledger, finished: Callable[[str, str], None]) -> Loop:
    from bike_pipeline.retraining.loop import Loop
    from bike_pipeline.retraining.triggers import trigger_classes

    section = settings.retraining
    made = [trigger(settings, ledger) for trigger in trigger_classes(section.triggers).values()]
    owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    return Loop(ledger, PipelineExecutor(settings, finished), made, section, owner)


def watch(
    settings: Settings,
    *,
    once: bool = False,
    ended: Callable[[Run], None] = lambda _: None,
    finished: Callable[[str, str], None] = lambda _stage, _state: None,
    stop: threading.Event | None = None,
) -> list[Run]:
    """Ask the triggers again and again, and bring each run to its end, until `stop` is set; return the runs that ended.

    With `once`, each trigger is asked once, and the call returns when nothing is left to do. Several processes may
    watch: one works, the others take over where it dies.

    Args:
        settings: the settings.
        once: whether to end when nothing is left to do.
        ended: called with each run that has ended.
        finished: called with the name and the state of each stage that ends.
        stop: ends the watch, behind the run that is under way.

    Raises:
        StorageError: the ledger cannot be used.
        BusyError: only with `once`: another run holds the workspace, or another process the lease.
    """
    ledger, stop = open_ledger(settings), stop or threading.Event()
    loop, runs, changed = _loop(settings, ledger, finished), list[Any](), threading.Event()
    uploads_of(settings).clear()
    seconds = settings.retraining.poll_seconds

    def poll() -> None:
        if loop.poll():
            changed.set()

    if once:
        loop.poll(everything=True)
    with _signs_of_life(loop, seconds, stop, *(() if once else (poll,))) as check:
        if once and loop.hold() is None:
            raise BusyError("another process watches", where=str(settings.retraining_path), fix="let it do the work")
        busy = 0
        while not stop.is_set():
            try:
                run, busy = loop.work(), 0
            except BusyError:
                if once:
                    raise
                # To ask again costs the start of a run.
                busy = min(busy + 1, 16)
                stop.wait(min(seconds * 2.0**busy, _MOST_BUSY_SECONDS))
                continue
            if run is not None:
                runs.append(run)
                ended(run)
            elif once:
                break
            else:
                # A back-off or a debounce may end without an event.
                changed.wait(seconds)
                changed.clear()
                check()
    return runs


@contextmanager
def _signs_of_life(
    loop: Loop, seconds: float, stop: threading.Event, *more: Callable[[], object]
) -> Iterator[Callable[[], None]]:
    """Renew the lease while a run is under way, and do more, each for itself; give the lease back at the end.

    The function that is returned raises what ended one of these.
    """
    threads = [_Repeated(work, seconds, stop) for work in (loop.renew, *more)]
    for thread in threads:
        thread.start()

    def check() -> None:
        for thread in threads:
            thread.check()

    try:
        yield check
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        loop.let_go()


class _Repeated(threading.Thread):
    """Does something again and again until `stop` is set."""

    def __init__(self, work: Callable[[], object], seconds: float, stop: threading.Event) -> None:
        super().__init__(name=work.__name__, daemon=True)
        self._work, self._seconds, self._until = work, seconds, stop
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._until.wait(self._seconds):
                self._work()
        except BaseException as error:  # noqa: BLE001 (raised again by `check`, where somebody sees it)
            self._error = error

    def check(self) -> None:
        """Raise what ended this thread."""
        if self._error is not None:
            raise self._error


@dataclass(frozen=True)
class Retrained:
    """A run that a person asked for; `run` is None where another process watches and will do it."""

    event: RecordedEvent
    run: Run | None


def retrain(
    settings: Settings,
    because: str,
    data: Path | None = None,
    *,
    hops: int = 0,
    finished: Callable[[str, str], None] = lambda _stage, _state: None,
) -> Retrained:
    """Ask for a run, with a file of rows that it ingests first if one is named, and bring it to its end.

    Args:
        settings: the settings.
        because: the reason, for the ledger and the history.
        data: a CSV or Parquet file.
        hops: how many runs stand in the chain of causes before this one.
        finished: called with the name and the state of each stage that ends.

    Raises:
        BusyError: another run holds the workspace; the ledger keeps what was asked for.
    """
    from bike_pipeline.retraining.events import MANUAL, Event, digest_of

    ledger, uploads = open_ledger(settings), uploads_of(settings)
    source = f"{os.environ.get('USER', 'somebody')}@{socket.gethostname()}"
    if data is not None:
        most = settings.retraining.storage.most_megabytes * 1_000_000
        with data.open("rb") as stream:
            event = uploads.keep(
                stream, data.name, most, lambda sha, path: Event(MANUAL, source, sha, data.name, because, path, hops)
            )
    else:
        event = Event(MANUAL, source, digest_of(secrets.token_hex(16)), because, because, hops=hops)
    ledger.see(event, settings.retraining.policy.most_hops)
    loop = _loop(settings, ledger, finished)
    run = None
    with _signs_of_life(loop, settings.retraining.poll_seconds, threading.Event()):
        while (one := loop.work()) is not None:
            run = one if event.identity in one.events else run
    return Retrained(ledger.find(event.identity), run)


@dataclass(frozen=True)
class Triggers:
    """What the ledger holds.

    Attributes:
        paused: why no run may begin; "" if one may.
        watching: who holds the lease; "" if nobody does.
        events: every event, the oldest first.
        runs: every run, rising.
        checks: what each trigger said when it was asked last: `trigger_name`, `source`, `name`, `note`, `at`.
    """

    paused: str
    watching: str
    events: Sequence[RecordedEvent]
    runs: Sequence[Run]
    checks: Sequence[Mapping[str, Any]] = field(repr=False)


def triggers(settings: Settings) -> Triggers:
    """Return what triggers have seen and said, and the runs that came of it."""
    from bike_pipeline.retraining import ledger_tables as tables

    ledger = open_ledger(settings)
    watching = str((ledger.lease() or {}).get("owner", ""))
    return Triggers(ledger.paused, watching, ledger.events(), ledger.runs(), ledger.rows(tables.checks))


@dataclass(frozen=True)
class Explanation:
    """All that is known of an event: its changes of state, every decision on it, and its runs."""

    event: RecordedEvent
    transitions: Sequence[Mapping[str, Any]]
    decisions: Sequence[Mapping[str, Any]]
    runs: Sequence[Run]


def explain_trigger(settings: Settings, about: str) -> Explanation | list[Mapping[str, Any]]:
    """Explain an event, by the beginning of its identity; or why a trigger or a file made none, by its name.

    Raises:
        DataError: nothing is known by that.
    """
    from bike_pipeline.retraining import ledger_tables as tables

    ledger = open_ledger(settings)
    said = [row for row in ledger.rows(tables.checks) if about in (row["trigger_name"], row["name"], row["source"])]
    if said:
        return [*said]
    one = next((found for found in reversed(ledger.events()) if found.event.name == about), None)
    one = one or ledger.find(about)
    return Explanation(
        one,
        ledger.rows(tables.transitions, subject=f"event {one.identity}"),
        ledger.rows(tables.decisions, identity=one.identity),
        [run for run in ledger.runs() if one.identity in run.events],
    )


def retry(settings: Settings, identity: str) -> RecordedEvent:
    """Let an event that failed, was refused or is dead wait for a run again; see `Ledger.retry`."""
    ledger = open_ledger(settings)
    return ledger.retry(ledger.find(identity).identity)


def drop(settings: Settings, identity: str, why: str = "dropped by a person") -> RecordedEvent:
    """Let a waiting event be dead, and its upload go; see `Ledger.drop`."""
    ledger = open_ledger(settings)
    dropped = ledger.drop(ledger.find(identity).identity, why)
    uploads_of(settings).drop(dropped.event)
    return dropped


def pause(settings: Settings, reason: str) -> None:
    """Let no run begin from now on; "" lets them begin again."""
    open_ledger(settings).pause(reason)
