"""Schedule: a time that a cron expression names has come.

Whatever was missed while nobody watched is one event, the newest. A time is known by its minute in UTC, so no change to
or from summer time makes it come twice; what has a fixed hour in the hour that is left out comes right behind it, as
Debian's cron does it.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, ClassVar

from bike_pipeline.errors import ConfigurationError
from bike_pipeline.retraining.events import SCHEDULE, Event, digest_of
from bike_pipeline.retraining.triggers import Look, Note

if TYPE_CHECKING:
    from bike_pipeline.retraining.ledger import Ledger
    from bike_pipeline.settings import Settings


class Schedule:
    """Looks at the clock."""

    name: ClassVar[str] = SCHEDULE
    every_seconds = 1.0

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        """Reckon the times of the settings; a ConfigurationError if there is none, or no such time zone."""
        from zoneinfo import ZoneInfo

        from cronsim import CronSimError

        section = settings.retraining.schedule
        self._ledger, self._cron = ledger, section.cron
        self._source, self._come = f"{section.cron} ({section.zone})", 0.0
        try:
            self._zone = ZoneInfo(section.zone)
            if section.cron:
                if len(section.cron.split()) != 5:
                    raise ValueError("it has not the five fields minute, hour, day, month, weekday")
                self._near(time.time(), reverse=False)
        # No zone is a KeyError, a ValueError or what reading its file raises; where no time matches, none is next.
        except (CronSimError, ValueError, LookupError, OSError, StopIteration) as error:
            what = str(error) or "no time matches it"
            fix = "write it as in crontab(5), such as '0 3 * * 1'"
            raise ConfigurationError(f"'{self._source}': {what}", where="retraining.schedule", fix=fix) from None

    def look(self) -> Look:
        """Return an event if a time has come since the last one, or since this schedule was first looked at."""
        if not self._cron:
            return Look(notes=(Note("", "no time is named in the settings (retraining.schedule.cron)"),))
        now, key = time.time(), f"schedule {digest_of(self._source)}"
        kept = self._ledger.control(key)
        since = max(self._come, float(kept["at"])) if kept else now
        self._come = 0.0
        # Of a clock that was set back, what follows counts from now on.
        since = min(since, now)
        if kept is None or kept["at"] != since:
            # What came is in the ledger by now.
            self._ledger.set_control(key, {"at": since})
        last, following = self._near(now, reverse=True), self._near(now, reverse=False)
        note = Note(self._source, f"next at {following:%Y-%m-%d %H:%M %Z}")
        if last.timestamp() <= since:
            return Look(notes=(note,))
        self._come = last.timestamp()
        minute = f"{last.astimezone(UTC):%Y-%m-%dT%H:%MZ}"
        named = f"{last:%Y-%m-%d %H:%M %Z}"
        return Look((Event(self.name, self._source, digest_of(minute), named, f"scheduled for {named}"),), (note,))

    def _near(self, now: float, *, reverse: bool) -> datetime:
        """Return the newest time before a moment, or the first one behind it."""
        from cronsim import CronSim

        found: datetime = next(CronSim(self._cron, datetime.fromtimestamp(now, self._zone), reverse=reverse))
        return found
