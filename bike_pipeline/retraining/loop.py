"""The loop: asks the triggers, claims runs, and brings each to its end, whatever it is killed at.

A run goes ingest → train and judge → promote. Each step is made, then recorded; a process that dies between the two
leaves the step to be made again, which changes nothing the second time: the span store knows the rows, the run is
answered from its cache, a version that serves already is not promoted twice.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from bike_pipeline.errors import (
    BikePipelineError,
    BusyError,
    ConfigurationError,
    DataError,
    DataGateError,
    MissingExtraError,
    ModelError,
    first_words,
)
from bike_pipeline.retraining.events import ENDED, OPEN, RecordedEvent, Run, State
from bike_pipeline.retraining.ledger import Ledger
from bike_pipeline.retraining.outcomes import INGESTED_VERSIONS, WITHDRAWAL
from bike_pipeline.retraining.triggers import Note, Trigger
from bike_pipeline.settings.retraining import RetrainingSettings

# What is wrong with the rows or the settings is wrong the next time too; everything else may pass.
_REFUSED = (ConfigurationError, MissingExtraError, ModelError)
# What a trigger says again is written again after so long.
_NOTED_SECONDS = 60.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Judged:
    """What a run of the pipeline came to.

    Attributes:
        run_id: its name in ML Metadata, or on the cluster.
        pushed_version: the version that it pushed; None where the candidate was not blessed.
        why: why it is not blessed; "" if it is.
        facts: what else the ledger keeps of it, such as `cpu_seconds`.
    """

    run_id: str
    pushed_version: int | None
    why: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


class Executor(Protocol):
    """What the loop has done: each of these may be called again after a crash, and then changes nothing more."""

    def ingest(self, event: RecordedEvent, before_write: Callable[[], None]) -> Mapping[str, Any]:
        """Make a version of a span of the rows that an event brings; return `span` and `version`.

        Raises:
            BusyError: `before_write`, which is called while nobody else can write, says that another process works now.
            DataError: the rows are refused; the store is as it was.
        """

    def train(self, run: Run, trained: Callable[[], None]) -> Judged:
        """Run the pipeline; `trained` is called when a model is trained, before it is judged.

        Raises:
            DataGateError: the data gate refuses the newest span.
        """

    def ingested_versions(self, events: Sequence[RecordedEvent]) -> list[tuple[int, int]]:
        """Return the spans and versions that `ingest` made of events and that count, rising."""

    def withdraw(self, span: int, version: int, why: str) -> None:
        """Take a version of a span back, unless a model was pushed that was trained on it.

        Raises:
            DataError: the store does not let it go.
        """

    def promote(self, run: Run, version: int) -> str:
        """Validate a version and let it serve; return why it waits for a person or for its rollout, or "".

        Raises:
            ModelError: it does not pass its validation.
        """

    def settled(self, version: int) -> tuple[State, str] | None:
        """Return what became of a version that was not promoted at once, and why; None while it waits."""

    def ended(self, run: Run, events: Sequence[RecordedEvent]) -> None:
        """Record a run that has ended where others look, and clear what it needed no longer needs."""


class Loop:
    """Asks triggers and works on runs, one at a time, while it holds the ledger's lease."""

    def __init__(
        self,
        ledger: Ledger,
        executor: Executor,
        triggers: Sequence[Trigger],
        settings: RetrainingSettings,
        owner: str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare to work as `owner`, a name that no other process has."""
        self._ledger, self._executor, self.triggers = ledger, executor, triggers
        self._settings, self._owner, self._monotonic = settings, owner, monotonic
        self._looked: dict[str, float] = {}
        self._seen: dict[str, set[str]] = {}
        self._noted: dict[tuple[str, str, str], tuple[str | None, float]] = {}
        self._fence: int | None = None
        self._held = -math.inf

    def poll(self, everything: bool = False) -> int:
        """Ask each trigger whose pause is over, or all; return how many changes are new.

        A trigger that cannot look is told in the ledger, and asked again later.
        """
        new = 0
        for trigger in self.triggers:
            now = self._monotonic()
            if not everything and now - self._looked.get(trigger.name, -math.inf) < trigger.every_seconds:
                continue
            self._looked[trigger.name] = now
            try:
                look = trigger.look()
            except BikePipelineError as error:
                self._note(trigger.name, [Note("", f"cannot look: {error}")])
                continue
            before = self._seen.get(trigger.name, set())
            self._seen[trigger.name] = {event.identity for event in look.events}
            # What the last look saw as well is no further sighting: it would be debounced for ever.
            fresh = [event for event in look.events if event.identity not in before]
            new += sum(self._ledger.see(event, self._settings.policy.most_hops) for event in fresh)
            self._note(trigger.name, look.notes)
        return new

    def _note(self, trigger: str, notes: Sequence[Note]) -> None:
        now, said = self._monotonic(), {(trigger, note.source, note.name): note for note in notes}
        fresh = []
        for key, note in said.items():
            text, at = self._noted.get(key, (None, -math.inf))
            if note.text != text or now - at > _NOTED_SECONDS:
                fresh.append(note)
                self._noted[key] = note.text, now
        if fresh:
            self._ledger.record_notes(trigger, fresh)
            self._noted = {key: noted for key, noted in self._noted.items() if now - noted[1] <= 2 * _NOTED_SECONDS}

    def hold(self) -> int | None:
        """Take the lease, or renew it after a third of it; return its fence, None where another process works."""
        now, seconds = self._monotonic(), self._settings.lease_seconds
        if self._fence is None or now - self._held > seconds / 3:
            self._fence, self._held = self._ledger.hold_lease(self._owner, seconds), now
        return self._fence

    @property
    def ledger(self) -> Ledger:
        """The ledger that it works on."""
        return self._ledger

    @property
    def holds(self) -> bool:
        """Whether this process held the lease when it looked last."""
        return self._fence is not None

    def renew(self) -> None:
        """Renew the lease, if this process holds it; it takes none."""
        if self._fence is not None:
            self.hold()

    def release(self) -> None:
        """Give the lease back, so that another process need not wait for its end."""
        self._fence = None
        self._ledger.release_lease(self._owner)

    def work(self) -> Run | None:
        """Bring the open run, or the next one, to its end; None if there is nothing to do, or another process works.

        Raises:
            BusyError: another process took the lease over meanwhile, and goes on with the run.
        """
        fence = self.hold()
        if fence is None:
            return None
        try:
            return self._work(fence)
        except BusyError:
            # Whoever holds the lease goes on; so does the next call, where another run held the workspace.
            self._fence = None
            raise

    def _work(self, fence: int) -> Run | None:
        unfinished = self._ledger.unfinished(fence)
        # What a process left to do that ended behind its last step: before anything begins on top of it.
        for run in unfinished:
            if run.state in ENDED:
                self._close(run)
        for run in unfinished:
            # What had waited for a person, or for the end of its rollout.
            if run.state is State.JUDGED and (settled := self._executor.settled(run.facts["pushed_version"])):
                self._end(run, *settled)
        left = next((run for run in unfinished if run.state in OPEN), None)
        run_now = left or self._ledger.claim(fence, self._settings.policy)
        return None if run_now is None else self._finish(run_now)

    def _finish(self, run: Run) -> Run:
        try:
            run = self._ingest(run)
            if run.state in ENDED:
                return run
            return self._promote(self._train(run))
        except BusyError:
            raise
        except (DataError, DataGateError) as error:
            return self._refused_rows(run, str(error))
        except _REFUSED as error:
            return self._end(run, State.REFUSED, str(error))
        except Exception as error:  # noqa: BLE001 (whatever it is: the loop goes on, and the ledger says it)
            reason = str(error) if isinstance(error, BikePipelineError) else first_words(error)
            _log.warning("run %d failed: %s", run.number, reason, exc_info=not isinstance(error, BikePipelineError))
            return self._end(run, State.FAILED, reason)

    def _ingest(self, run: Run) -> Run:
        """Ingest what the events bring; those that are refused leave the run, which ends if none is left."""
        if run.state is not State.CLAIMED:
            return run
        for one in self._in(run):
            if not one.event.upload or "span" in one.details:
                continue
            try:
                details = self._executor.ingest(one, lambda: self._ledger.check(run))
                self._ledger.set_details(run, one.identity, details)
            except DataError as error:
                self._ledger.refuse(run, one.identity, str(error))
        left = self._in(run)
        if not left:
            return self._end(run, State.REFUSED, "no event is left: each was refused")
        spans = [[one.details["span"], one.details["version"]] for one in left if "span" in one.details]
        return self._ledger.advance(run, State.INGESTED, spans=spans)

    def _train(self, run: Run) -> Run:
        if run.state is State.TRAINED and "pushed_version" in run.facts:
            return run
        judged = self._executor.train(run, lambda: self._trained(run))
        facts = {**judged.facts, "run_id": judged.run_id, "pushed_version": judged.pushed_version}
        if judged.pushed_version is None:
            return self._end(run, State.REFUSED, judged.why or "the candidate is not blessed", **facts)
        # Recorded before anything serves: a process that dies here promotes this very version, and no other.
        return self._ledger.advance(run, State.TRAINED, "blessed and pushed", **facts)

    def _trained(self, run: Run) -> None:
        self._ledger.advance(run, State.TRAINED)

    def _refused_rows(self, run: Run, why: str) -> Run:
        """End a run whose rows are refused together. Of several uploads one may be sound: each gets a run of its own.

        What brings no rows is not to blame, and waits for the next run.
        """
        left = self._in(run)
        versions = {one.identity: (one.details["span"], one.details["version"]) for one in left if one.details}
        apart = len(set(versions.values())) > 1
        again = {one.identity: one.identity in versions for one in left if apart or one.identity not in versions}
        return self._end(run, State.REFUSED, why, again=again if versions else {})

    def _promote(self, run: Run) -> Run:
        if run.state in ENDED:
            return run
        version = run.facts["pushed_version"]
        why_not = self._executor.promote(run, version)
        if why_not:
            return self._ledger.advance(run, State.JUDGED, why_not)
        return self._end(run, State.PROMOTED, f"version {version} serves")

    def _end(self, run: Run, state: State, why: str, again: Mapping[str, bool] | None = None, **facts: Any) -> Run:
        if state is not State.PROMOTED:
            # By their numbers: what a process that stalls withdraws late must not be what another one made since.
            uploads = [one for one in self._in(run) if one.event.upload]
            facts[INGESTED_VERSIONS] = self._executor.ingested_versions(uploads)
        attempts = self._settings.policy.attempts
        ended = self._ledger.advance(run, state, why, again=again, attempts=attempts, **facts)
        self._close(ended)
        return ended

    def _close(self, run: Run) -> None:
        if why := run.facts.get(WITHDRAWAL):
            # Later ones may be built on earlier ones.
            for span, version in reversed(run.facts.get(INGESTED_VERSIONS, ())):
                try:
                    self._executor.withdraw(span, version, why)
                except DataError as error:
                    # The store says no, and would say it the next time: a person has to look.
                    _log.warning("run %d leaves span %d version %d behind: %s", run.number, span, version, error)
        self._executor.ended(run, self._ledger.joined(run))
        self._ledger.close(run.number)

    def _in(self, run: Run) -> list[RecordedEvent]:
        """Return the events that are in a run still."""
        return [one for one in self._ledger.joined(run) if one.state not in (State.SEEN, *ENDED)]
