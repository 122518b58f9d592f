"""Continuous training: watch for changes, run for each of them once, and tell what happened and why not."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bike_pipeline.errors import BusyError, ConfigurationError, DataError, MetadataError
from bike_pipeline.use_cases.retraining_executor import PipelineExecutor, uploads_of

if TYPE_CHECKING:
    from pathlib import Path

    from bike_pipeline.retraining.events import RecordedEvent, Run
    from bike_pipeline.retraining.ledger import Ledger
    from bike_pipeline.retraining.loop import Loop
    from bike_pipeline.settings import Settings


# The longest pause between two tries while another process holds the workspace.
_MOST_BUSY_SECONDS = 60.0
# Between two looks at what webhooks are to be told.
_TOLD_SECONDS = 1.0
_LEDGER = "ledger.sqlite"
_log = logging.getLogger(__name__)


def has_ledger(settings: Settings) -> bool:
    """Return whether a workspace has a ledger: to look at one makes none."""
    return settings.metadata.mysql is not None or (settings.retraining_path / _LEDGER).is_file()


def open_ledger(settings: Settings) -> Ledger:
    """Return the ledger of a workspace, beside its ML Metadata on a server, or a file; it is made if it is not there.

    Raises:
        StorageError: it cannot be used.
        ConfigurationError: the one on the server is that of another model.
    """
    from bike_pipeline.retraining.ledger import Ledger
    from bike_pipeline.retraining.ledger_tables import of_file, of_server

    server = settings.metadata.mysql
    if server is None:
        return Ledger(of_file(settings.retraining_path / _LEDGER))
    from bike_pipeline.lineage.store.connection import account_of

    database, address = settings.retraining.database or server.database, settings.metadata_address
    account = account_of(address)
    ledger = Ledger(
        of_server(server.host, server.port, database, account, settings.metadata.ca_file, f"{address} ({database})")
    )
    home = ledger.control("home")
    if home is None:
        ledger.set_control("home", {"model": settings.serving_path})
    elif home["model"] != settings.serving_path:
        raise ConfigurationError(
            f"the ledger in the database {database} is that of {home['model']}",
            where="retraining.database",
            fix="name a database of its own for the ledger of this model",
        )
    return ledger


def existing_ledger(settings: Settings) -> Ledger:
    """Return the ledger of a workspace, which a look at it does not make; a DataError if there is none."""
    if not has_ledger(settings):
        fix = "`bike-pipeline watch` and `bike-pipeline retrain` begin one"
        raise DataError("there is no ledger yet", where=str(settings.retraining_path), fix=fix)
    return open_ledger(settings)


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
    started: Callable[[str], None] = lambda _address: None,
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
        started: called before the triggers are asked, with HOST:PORT where it takes notifications, "" for nowhere.
        stop: ends the watch, behind the run that is under way.

    Raises:
        StorageError: the ledger cannot be used.
        ConfigurationError: it is to take notifications, and who may send them is not said.
        ServerError: it cannot listen there.
        BusyError: only with `once`: another run holds the workspace, or another process the lease.
    """
    from bike_pipeline.retraining.listener import taking_notifications
    from bike_pipeline.use_cases.retraining_prices import price_daily

    ledger, stop = open_ledger(settings), stop or threading.Event()
    loop, runs, changed = _loop(settings, ledger, finished), list[Any](), threading.Event()
    uploads_of(settings).clear()
    seconds = settings.retraining.poll_seconds

    def poll() -> None:
        if loop.poll():
            changed.set()

    with ExitStack() as stack:
        if once:
            loop.poll(everything=True)
        else:
            started(stack.enter_context(taking_notifications(settings.retraining, loop)))
        check = stack.enter_context(_signs_of_life(settings, loop, stop, *(() if once else (poll,))))
        if once and loop.hold() is None:
            raise BusyError("another process watches", where=str(settings.retraining_path), fix="let it do the work")
        busy = 0
        while not stop.is_set():
            try:
                run, busy = loop.work(), 0
            except (BusyError, MetadataError) as error:
                if once:
                    raise
                # To ask again costs the start of a run.
                _log.warning("tried again later: %s", error)
                busy = min(busy + 1, 16)
                stop.wait(min(seconds * 2.0**busy, _MOST_BUSY_SECONDS))
                continue
            if run is not None:
                runs.append(run)
                ended(run)
                continue
            price_daily(settings, ledger)
            if once:
                break
            # A back-off or a debounce may end without an event.
            changed.wait(seconds)
            changed.clear()
            check()
    return runs


@contextmanager
def _signs_of_life(
    settings: Settings, loop: Loop, stop: threading.Event, *more: Callable[[], object]
) -> Iterator[Callable[[], None]]:
    """Renew the lease while a run is under way, tell webhooks, and do more, each for itself; give the lease back then.

    The function that is returned raises what ended one of these.
    """
    from bike_pipeline.model_registry import ModelRegistry
    from bike_pipeline.retraining.webhooks import Webhooks

    path, seconds = settings.serving_path, settings.retraining.poll_seconds
    webhooks = Webhooks(loop.ledger, settings.retraining.webhooks, path, ModelRegistry(path).history)

    def deliver() -> None:
        # One process tells at a time.
        if loop.holds:
            webhooks.deliver()

    threads = [_Repeated(work, seconds, stop) for work in (loop.renew, *more)]
    threads.append(_Repeated(deliver, max(seconds, _TOLD_SECONDS), stop))
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
        deliver()
        loop.release()


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
            event = uploads.store(
                stream, data.name, most, lambda sha, path: Event(MANUAL, source, sha, data.name, because, path, hops)
            )
    else:
        event = Event(MANUAL, source, digest_of(secrets.token_hex(16)), because, because, hops=hops)
    ledger.see(event, settings.retraining.policy.most_hops)
    loop = _loop(settings, ledger, finished)
    run = None
    with _signs_of_life(settings, loop, threading.Event()):
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
    """Return what triggers have seen and said, and the runs that came of it; nothing if nobody ever watched."""
    from bike_pipeline.retraining import ledger_tables as tables

    if not has_ledger(settings):
        return Triggers("", "", (), (), ())
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
        DataError: nothing is known by that, or nothing ever watched.
    """
    from bike_pipeline.retraining import ledger_tables as tables

    ledger = existing_ledger(settings)
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
    ledger = existing_ledger(settings)
    return ledger.retry(ledger.find(identity).identity)


def drop(settings: Settings, identity: str, why: str = "dropped by a person") -> RecordedEvent:
    """Let a waiting event be dead, and its upload go; see `Ledger.drop`."""
    ledger = existing_ledger(settings)
    dropped = ledger.drop(ledger.find(identity).identity, why)
    uploads_of(settings).drop(dropped.event)
    return dropped


def pause(settings: Settings, reason: str) -> None:
    """Let no run begin from now on; "" lets them begin again."""
    open_ledger(settings).pause(reason)
