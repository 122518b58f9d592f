"""What asks for a run. A trigger is a class that is asked again and again; other packages add theirs as entry points.

Whatever brings a trigger to look earlier (a notification, a webhook) only says that there is something to look at: the
trigger itself asks where the change is, so that notifications may come twice, late, in any order or never.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, ClassVar, Protocol

from bike_pipeline.errors import ConfigurationError
from bike_pipeline.retraining.events import CODE, CONCEPT_DRIFT, REPOSITORY_DATA, SCHEDULE, STORAGE, Event

if TYPE_CHECKING:
    from bike_pipeline.retraining.ledger import Ledger
    from bike_pipeline.settings import Settings

TRIGGERS_GROUP = "bike_pipeline.triggers"
_OWN_TRIGGERS = {
    CODE: "bike_pipeline.retraining.triggers.code:Code",
    CONCEPT_DRIFT: "bike_pipeline.retraining.triggers.concept_drift:ConceptDrift",
    REPOSITORY_DATA: "bike_pipeline.retraining.triggers.storage:RepositoryData",
    SCHEDULE: "bike_pipeline.retraining.triggers.schedule:Schedule",
    STORAGE: "bike_pipeline.retraining.triggers.storage:Storage",
}


@dataclass(frozen=True)
class Note:
    """What a trigger says of a source, or of one thing in it (`name`) that makes no event: why it did not fire.

    An empty `text` takes back what was said before.
    """

    source: str
    text: str
    name: str = ""


@dataclass(frozen=True)
class Look:
    """What a trigger saw when it was asked."""

    events: tuple[Event, ...] = ()
    notes: tuple[Note, ...] = ()


class Trigger(Protocol):
    """What asks for a run.

    Attributes:
        name: the trigger's name.
        every_seconds: the shortest pause between two looks, since some cost money or seconds.
    """

    name: ClassVar[str]
    every_seconds: float

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        """Prepare to look; nothing is read yet."""

    def look(self) -> Look:
        """Return what there is now. What was seen before may come again: the ledger knows it.

        Raises:
            BikePipelineError: the place cannot be looked at now; it is asked again later.
        """


def trigger_classes(names: tuple[str, ...]) -> Mapping[str, type[Trigger]]:
    """Return triggers by name: ours, or entry points of `TRIGGERS_GROUP`; a ConfigurationError for an unknown name."""
    own = {name: EntryPoint(name, place, TRIGGERS_GROUP) for name, place in _OWN_TRIGGERS.items()}
    known = {point.name: point for point in entry_points(group=TRIGGERS_GROUP)} | own
    for name in names:
        if name not in known:
            fix = f"choose among: {', '.join(sorted(known))}"
            raise ConfigurationError(f"there is no trigger '{name}'", where="retraining.triggers", fix=fix)
    return {name: known[name].load() for name in names}
