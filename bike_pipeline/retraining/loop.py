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
from bike_pipeline.retraining.events import ENDED, RecordedEvent, Run, State
from bike_pipeline.retraining.ledger import Ledger
from bike_pipeline.retraining.triggers import Note, Trigger
from bike_pipeline.settings.retraining import RetrainingSettings

# What is wrong with the rows or the settings is wrong the next time too; everything else may pass.
_REFUSED = (DataError, DataGateError, ConfigurationError, MissingExtraError, ModelError)
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

    def ingest(self, event: RecordedEvent) -> Mapping[str, Any]:
        """Make a version of a span of the rows that an event brings; return `span` and `version`.

        Raises:
            DataError: the rows are refused; the store is as it was.
        """

    def train(self, run: Run, trained: Callable[[], None]) -> Judged:
        """Run the pipeline; `trained` is called when a model is trained, before it is judged.

        Raises:
            DataGateError: the data gate refuses the newest span.
        """

    def withdraw(self, details: Mapping[str, Any], why: str) -> None:
        """Take a version of a span back that `ingest` made, unless a model was blessed on it."""

    def promote(self, run: Run, version: int) -> str:
        """Validate a version and let it serve; return why it waits for a person, or "".

        Raises:
            ModelError: it does not pass its validation.
        """

    def serves(self, version: int) -> bool:
        """Return whether a version serves, or served after it was pushed."""

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
        self._ledger, self._executor, self._triggers = ledger, executor, triggers
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
        for trigger in self._triggers:
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
            self._ledger.checked(trigger, fresh)
            self._noted = {key: noted for key, noted in self._noted.items() if now - noted[1] <= 2 * _NOTED_SECONDS}

    def hold(self) -> int | None:
        """Take the lease, or renew it after a third of it; return its fence, None where another process works."""
        now, seconds = self._monotonic(), self._settings.lease_seconds
        if self._fence is None or now - self._held > seconds / 3:
            self._fence, self._held = self._ledger.hold_lease(self._owner, seconds), now
        return self._fence

    def let_go(self) -> None:
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
        self._reconcile()
        # What a process left to do that ended behind its last step.
        for left in self._ledger.unclosed():
            self._close(left)
        run = self._ledger.adopt(fence) or self._ledger.claim(fence, self._settings.policy)
        return None if run is None else self._finish(run)

    def _reconcile(self) -> None:
        """Tell the ledger of what a person promoted that had waited for that."""
        for run in self._ledger.runs(State.JUDGED):
            version = run.facts["pushed_version"]
            if self._executor.serves(version):
                self._end(run, State.PROMOTED, f"version {version} was promoted by a person")

    def _finish(self, run: Run) -> Run:
        try:
            run = self._ingest(run)
            if run.state in ENDED:
                return run
            return self._promote(self._train(run))
        except BusyError:
            # Whoever holds the lease goes on; so does the next call, where another run held the workspace.
            self._fence = None
            raise
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
                self._ledger.settle(run, one.identity, details=self._executor.ingest(one))
            except DataError as error:
                self._ledger.settle(run, one.identity, State.REFUSED, str(error))
        left = self._in(run)
        if not left:
            return self._end(run, State.REFUSED, "no event is left: each was refused")
        spans = [[one.details["span"], one.details["version"]] for one in left if "span" in one.details]
        return self._ledger.advance(run, State.INGESTED, spans=spans)

    def _train(self, run: Run) -> Run:
        if run.state is State.TRAINED and "pushed_version" in run.facts:
            return run
        if "gate" in run.facts:
            return self._refused_by_gate(run, run.facts["gate"])
        try:
            judged = self._executor.train(run, lambda: self._trained(run))
        except DataGateError as error:
            # Recorded before anything is taken back, or the next process would train without these rows.
            return self._refused_by_gate(self._ledger.advance(run, State.INGESTED, gate=str(error)), str(error))
        facts = {**judged.facts, "run_id": judged.run_id, "pushed_version": judged.pushed_version}
        if judged.pushed_version is None:
            return self._end(run, State.REFUSED, judged.why or "the candidate is not blessed", **facts)
        # Recorded before anything serves: a process that dies here promotes this very version, and no other.
        return self._ledger.advance(run, State.TRAINED, "blessed and pushed", **facts)

    def _trained(self, run: Run) -> None:
        self._ledger.advance(run, State.TRAINED)

    def _refused_by_gate(self, run: Run, why: str) -> Run:
        """Take back what the run has ingested. Of several uploads one may be sound: each gets a run of its own."""
        brought = [one for one in self._in(run) if "span" in one.details]
        for one in reversed(brought):
            self._executor.withdraw(one.details, why)
        if len(run.facts["spans"]) > 1:
            for one in brought:
                self._ledger.settle(run, one.identity, State.SEEN, f"refused together with others: {why}", details={})
        return self._end(run, State.REFUSED, why)

    def _promote(self, run: Run) -> Run:
        if run.state in ENDED:
            return run
        version = run.facts["pushed_version"]
        why_not = self._executor.promote(run, version)
        if why_not:
            return self._ledger.advance(run, State.JUDGED, why_not)
        return self._end(run, State.PROMOTED, f"version {version} serves")

    def _end(self, run: Run, state: State, why: str, **facts: Any) -> Run:
        ended = self._ledger.advance(run, state, why, attempts=self._settings.policy.attempts, **facts)
        self._close(ended)
        return ended

    def _close(self, run: Run) -> None:
        self._executor.ended(run, [self._ledger.find(identity) for identity in run.events])
        self._ledger.close(run.number)

    def _in(self, run: Run) -> list[RecordedEvent]:
        """Return the events that are in a run still."""
        found = [self._ledger.find(identity) for identity in run.events]
        return [one for one in found if one.run == run.number and one.state not in (State.SEEN, *ENDED)]
