"""What a runner tells while it works, and what it returns: the same for every runner."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class StageResult:
    """One stage of one run.

    Attributes:
        name: id of the stage.
        execution_id: MLMD id of its execution; 0 if it never came to one.
        state: "done", "cached", "failed" or "waiting" (not reached).
        seconds: wall time.
        outcome: what came out, in a few words; the error if it failed.
    """

    name: str
    execution_id: int
    state: str
    seconds: float
    outcome: str


class RunObserver:
    """Whoever wants to know how a run goes; what a subclass does not override, it does not hear."""

    def loading(self) -> None:
        """Learn that something has changed, so that the libraries that do the work are loaded, which takes a while."""

    def planned(self, stages: list[str]) -> None:
        """Learn the stages, in order, before the first one starts."""

    def started(self, stage: str) -> None:
        """Learn that a stage begins."""

    def progressed(self, stage: str, fraction: float, text: str) -> None:
        """Learn how far a stage has come (0 to 1) and what it is doing."""

    def finished(self, result: StageResult) -> None:
        """Learn that a stage is done, was answered from the cache, or failed."""


@dataclass(frozen=True)
class RunResult:
    """What a run came to.

    Attributes:
        run_id: its name in ML Metadata.
        stages: every stage, in order.
        pushed_version: version that was pushed by this run, or that an identical run before had pushed; None where the
            candidate was not blessed.
        newly_pushed: whether this very run pushed it.
        decisions: the evaluation's report (see `evaluation.report`).
        destination: folder of the pushed version; "" if there is none.
    """

    run_id: str
    stages: tuple[StageResult, ...]
    pushed_version: int | None
    newly_pushed: bool
    decisions: dict[str, object] = field(repr=False)
    destination: str
