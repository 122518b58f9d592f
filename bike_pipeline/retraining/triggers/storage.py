"""Storage: files of rows that are new or changed in folders, here or in object storage.

A file is read once: it is copied and hashed, and the ledger remembers its mark when its event is there. A process that
dies between the two reads it again, and finds its event by its content.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from bike_pipeline.errors import BikePipelineError, DataError
from bike_pipeline.retraining.events import REPOSITORY_DATA, STORAGE, Event, RecordedEvent, State
from bike_pipeline.retraining.notifications import Hint, Queue, of_s3_message
from bike_pipeline.retraining.triggers import Look, Note
from bike_pipeline.retraining.uploads import Uploads
from bike_pipeline.retraining.watched_folders import Entry, WatchedFolder, watched_folder

if TYPE_CHECKING:
    from bike_pipeline.retraining.ledger import Ledger
    from bike_pipeline.settings import Settings

# Of one place so many files are told of by name.
_MOST_NOTES = 200
_SHORT = 12
# Between two questions to a queue, which cost money too, if little.
_QUEUE_SECONDS = 1.0


class Taken(NamedTuple):
    """A file that was copied: its event, and what the ledger knew of that before."""

    event: Event
    known: RecordedEvent | None


def take(
    uploads: Uploads,
    ledger: Ledger,
    place: WatchedFolder,
    entry: Entry,
    most_bytes: int,
    made: Callable[[str, str], Event],
) -> Taken:
    """Copy a file of a place; `made` returns its event by its SHA-256 and the copy.

    Raises:
        DataError: it cannot be read, is too large or was changed meanwhile.
    """
    with place.reading(entry) as stream:
        event = uploads.store(stream, entry.shown, most_bytes, made)
    known = None
    with suppress(DataError):
        known = ledger.find(event.identity)
        if known.state is State.PROMOTED:
            # It was learnt; nobody would remove the copy.
            uploads.drop(event)
        elif Path(known.event.upload).parent == Path(event.upload).parent:
            # The same bytes at the place that its event names, where they may have been dropped.
            Path(event.upload).replace(known.event.upload)
    return Taken(event, known)


class Storage:
    """Looks at the folders of retraining.storage.sources."""

    name: ClassVar[str] = STORAGE
    # Each folder has a pause of its own.
    every_seconds = 0.0

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        """Watch the folders of the settings."""
        section = settings.retraining.storage
        self._queue: Queue | None = None
        self._asked = -math.inf
        pauses = section.settle_seconds, section.remote_seconds
        self._most = section.most_megabytes * 1_000_000
        self._ledger, self._uploads = ledger, Uploads(settings.retraining_path / "uploads")
        addresses, self._queue_url = self._configured(settings)
        places = [watched_folder(one, *pauses, self._most) for one in addresses]
        self._watched = [_Watched(self, place) for place in places]

    @staticmethod
    def _configured(settings: Settings) -> tuple[tuple[str, ...], str]:
        """Return the folders and the queue."""
        return settings.retraining.storage.sources, settings.retraining.storage.queue

    def look(self) -> Look:
        """Return an event for each file that is new, and say of the others why not."""
        if not self._watched:
            return Look(notes=(Note("", "no folder is named in the settings, so nothing is watched"),))
        notes = self._ask_queue()
        looks = [one.look() for one in self._watched]
        notes += [note for one in looks for note in one.notes]
        return Look(tuple(event for one in looks for event in one.events), tuple(notes))

    def hint(self, hint: Hint) -> bool:
        """Let the next look list a folder whatever its pause, if a file is in it; return whether that is watched."""
        folder, _, name = hint.address.rpartition("/")
        due = [one for one in self._watched if one.place.source == folder]
        for one in due:
            one.looked = -math.inf
            if hint.hops:
                one.hops[name] = hint.hops
        return bool(due)

    def _ask_queue(self) -> list[Note]:
        """Take hints from the queue; say of what it holds besides."""
        url, notes = self._queue_url, list[Note]()
        if not url or time.monotonic() - self._asked < _QUEUE_SECONDS:
            return notes
        self._asked = time.monotonic()
        try:
            self._queue = self._queue or Queue(url)
            # What it told of before was looked at, and is in the ledger.
            self._queue.looked()
            for body in self._queue.receive():
                try:
                    strange = [one.address for one in of_s3_message(body) if not self.hint(one)]
                except DataError as error:
                    notes.append(Note(url, error.what))
                else:
                    notes += [
                        Note(address, "a message told of it, and its folder is not watched") for address in strange
                    ]
        except BikePipelineError as error:
            notes.append(Note(url, error.what))
        return notes

    def take(self, place: WatchedFolder, entry: Entry, hops: int) -> Taken:
        """Copy a file; see `take`."""

        def made(sha: str, path: str) -> Event:
            return Event(self.name, place.source, sha, entry.shown, f"new: {entry.shown}", path, hops)

        return take(self._uploads, self._ledger, place, entry, self._most, made)

    def marks(self, source: str) -> dict[str, str]:
        """Return the marks of the files of a place that were taken, by the digest of their names."""
        return self._ledger.marks(self.name, source)

    def remember(self, source: str, marks: dict[str, str], gone: set[str]) -> None:
        """Keep marks of files that were taken, and forget those that are gone."""
        self._ledger.remember(self.name, source, marks, gone)


class RepositoryData(Storage):
    """Looks at the project's own folder for rows, retraining.incoming."""

    name: ClassVar[str] = REPOSITORY_DATA

    @staticmethod
    def _configured(settings: Settings) -> tuple[tuple[str, ...], str]:
        return (str(settings.incoming_path),) if settings.retraining.incoming else (), ""


class _Watched:
    """A place, and what was taken from it."""

    def __init__(self, trigger: Storage, place: WatchedFolder) -> None:
        self._trigger, self.place = trigger, place
        self.looked = -math.inf
        # By name of a file, how many runs somebody says stand before it.
        self.hops: dict[str, int] = {}
        self._marks: dict[str, str] | None = None
        self._taken: dict[str, str] = {}

    def look(self) -> Look:
        """List the place, if its pause is over, and take what is new."""
        source = self.place.source
        try:
            if self._marks is None:
                self._marks = self._trigger.marks(source)
            # The loop looks again only when what was returned before is in the ledger.
            self._remember(self._taken)
            if time.monotonic() - self.looked < self.place.every_seconds:
                return Look()
            self.looked = time.monotonic()
            return self._list(self._marks)
        except BikePipelineError as error:
            # What was copied and is not told of is read again.
            self._taken = {}
            return Look(notes=(Note(source, f"cannot look: {error.what}"),))

    def _list(self, marks: dict[str, str]) -> Look:
        source, notes, present, passed = self.place.source, list[Note](), set[str](), 0
        events: dict[str, Event] = {}
        # The older first, so that corrections come behind what they correct.
        for entry in sorted(self.place.entries(), key=lambda one: (one.at, one.name)):
            key = entry.key
            present.add(key)
            if marks.get(key) == entry.mark:
                continue
            why_not = entry.why_not
            if not why_not:
                try:
                    event, known = self._trigger.take(self.place, entry, self.hops.pop(entry.name, 0))
                except DataError as error:
                    why_not = error.what
                else:
                    self._taken[key] = entry.mark
                    first = events.setdefault(event.identity, event) if known is None else known.event
                    if first is not event:
                        state = f", which is {known.state}" if known else ""
                        why_not = f"its content is that of event {event.identity[:_SHORT]} ({first.name}){state}"
                    events[event.identity] = first
            passed += bool(why_not)
            if passed <= _MOST_NOTES:
                # An empty one takes back what was said of the file before.
                notes.append(Note(source, why_not, entry.shown))
        self._remember({}, marks.keys() - present)
        told = f"{len(present)} names, {len(events)} of them new, {passed} passed over"
        return Look(tuple(events.values()), (*notes, Note(source, told)))

    def _remember(self, taken: dict[str, str], gone: set[str] | None = None) -> None:
        if not taken and not gone:
            return
        self._trigger.remember(self.place.source, taken, gone or set())
        assert self._marks is not None
        self._marks.update(taken)
        for key in gone or ():
            del self._marks[key]
        self._taken = {}
