"""What a trigger sees, what becomes of it, and the run that it joins."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

# Triggers by name; an entry point of another package adds its own.
CODE, REPOSITORY_DATA, STORAGE = "code", "repository-data", "storage"
CONCEPT_DRIFT, SCHEDULE, MANUAL = "concept-drift", "schedule", "manual"


class State(StrEnum):
    """What has become of an event, or how far a run is.

    A person may try FAILED, DEAD and REFUSED again; FAILED is tried again by itself after a while.
    """

    SEEN = "seen"
    CLAIMED = "claimed"
    INGESTED = "ingested"
    TRAINED = "trained"
    JUDGED = "judged"
    PROMOTED = "promoted"
    REFUSED = "refused"
    FAILED = "failed"
    DEAD = "dead"


# A run in one of these has begun and not ended.
OPEN = (State.CLAIMED, State.INGESTED, State.TRAINED)
ENDED = (State.PROMOTED, State.REFUSED, State.FAILED, State.DEAD)
# Events that wait for a run: the second after its back-off.
WAITING = (State.SEEN, State.FAILED)


@dataclass(frozen=True)
class Event:
    """A change that a trigger has seen.

    Attributes:
        trigger: the trigger's name.
        source: where the change came from, such as an address without credentials; never the name of a file.
        digest: SHA-256 of what has changed, hexadecimal.
        name: how a person knows it, such as a file's name.
        reason: why that asks for a run, in words.
        upload: local file with the rows that it brings; "" if it brings none.
        hops: how many runs stand in the chain of causes before it; 0 for what no run has caused.
        rows: how many rows it brings; 0 if that is not known, or if it brings none.
    """

    trigger: str
    source: str
    digest: str
    name: str = ""
    reason: str = ""
    upload: str = ""
    hops: int = 0
    rows: int = 0

    @property
    def identity(self) -> str:
        """SHA-256 over trigger, source and digest: what is the same change, whatever it is called."""
        return digest_of(self.trigger, self.source, self.digest)


def digest_of(*parts: str) -> str:
    """Return the SHA-256 of texts, each apart from the next."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@dataclass(frozen=True)
class RecordedEvent:
    """An event as the ledger has it.

    Attributes:
        event: what was seen first.
        state: what has become of it.
        why: the reason for its state.
        first_seen: POSIX time.
        last_seen: POSIX time.
        sightings: how often it was seen.
        attempts: runs that it was part of and that failed since the last success or retry.
        failed_at: when the last of them failed, POSIX time; None if none has.
        run: number of the run that it joined last; None before.
        alone: whether it must have a run of its own, since it was refused together with others.
        details: what the steps keep of it, such as the span version it became.
    """

    event: Event
    state: State
    why: str
    first_seen: float
    last_seen: float
    sightings: int
    attempts: int
    failed_at: float | None
    run: int | None
    alone: bool
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        return self.event.identity


@dataclass(frozen=True)
class Run:
    """A run that the ledger knows.

    Attributes:
        number: its number, from 1 on.
        state: how far it is.
        why: the reason for its state.
        reason: why it takes place: the reasons of its events.
        events: identities of the events that it answers.
        claimed_at: POSIX time.
        ended_at: POSIX time; None while it is open.
        fence: of the lease that it is worked on under; a process with an older lease changes nothing.
        facts: what its steps came to: `run_id`, `pushed_version`, `spans`, `cpu_seconds`.
    """

    number: int
    state: State
    why: str
    reason: str
    events: tuple[str, ...]
    claimed_at: float
    ended_at: float | None
    fence: int
    facts: Mapping[str, Any] = field(default_factory=dict)
