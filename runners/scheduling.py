"""In which order stages run, and which of them at the same time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

Result = TypeVar("Result")


def run_in_order(
    upstream: Mapping[str, Collection[str]], launch: Callable[[str], Result], at_once: int
) -> list[Result]:
    """Launch every stage as soon as all stages before it are done.

    A stage that has nothing beside it runs in the calling thread, so that an interruption reaches it; stages that can
    run at the same time get a thread each.

    Args:
        upstream: for every stage the stages that must be done before it; in the order in which results are wanted.
        launch: runs one stage to its end.
        at_once: how many stages may run at the same time.

    Returns:
        What `launch` returned, in the order of `upstream`.

    Raises:
        BaseException: the first failure of a stage. Stages that run at that time come to their end first, and no
            other one is started. An interruption is raised at once.
        ValueError: stages wait for each other or for one that does not exist.
    """
    waiting = list(upstream)
    done: dict[str, Result] = {}
    running: set[str] = set()
    failure: BaseException | None = None
    ended: queue.SimpleQueue[tuple[str, Result | None, BaseException | None]] = queue.SimpleQueue()

    def work(name: str) -> None:
        try:
            ended.put((name, launch(name), None))
        except BaseException as error:  # noqa: BLE001 (it is raised again in the calling thread)
            ended.put((name, None, error))

    while (waiting and failure is None) or running:
        ready = [] if failure else [name for name in waiting if all(before in done for before in upstream[name])]
        starting = ready[: at_once - len(running)]
        if not starting and not running:
            raise ValueError(f"these stages wait for each other or for unknown ones: {', '.join(waiting)}")
        waiting = [name for name in waiting if name not in starting]
        if len(starting) == 1 and not running:
            done[starting[0]] = launch(starting[0])
            continue
        for name in starting:
            running.add(name)
            # A daemon, so that an interrupted process ends although a library still works.
            threading.Thread(target=work, args=(name,), name=name, daemon=True).start()
        name, result, error = ended.get()
        running.remove(name)
        if error is not None:
            failure = failure or error
        else:
            done[name] = result  # type: ignore[assignment] # a stage without an error has its result
    if failure is not None:
        raise failure
    return [done[name] for name in upstream]
