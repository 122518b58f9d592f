"""Who is told of changes of state: each webhook has a place of its own in the promotion log and in the ledger.

A message is sent, then the place moves on: a process that dies between the two sends it again, with the same id, and
none is lost or overtaken. Headers and signature are those of the Standard Webhooks specification (version 1.0.0).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bike_pipeline.model_registry.deployment import Change
from bike_pipeline.retraining.events import digest_of
from bike_pipeline.retraining.ledger import Ledger
from bike_pipeline.retraining.policy import elapsed
from bike_pipeline.retraining.triggers import Note
from bike_pipeline.settings.retraining import WebhookSettings
from bike_pipeline.storage.remote_files import without_credentials

# How long a receiver may take, and between two attempts: doubled each time, in seconds.
_TIMEOUT_SECONDS, _FIRST_PAUSE, _LONGEST_PAUSE = 10.0, 5.0, 3600.0
# Bytes, as the specification has it.
_LEAST_SECRET = 24


@dataclass(frozen=True)
class _Message:
    stream: str
    number: int
    at: datetime
    type: str
    data: Mapping[str, Any]


class Webhooks:
    """Tells what changed, in order; a receiver that is away holds up its own messages alone."""

    def __init__(
        self,
        ledger: Ledger,
        hooks: Sequence[WebhookSettings],
        model: str,
        history: Callable[[], Sequence[Change]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Tell of a model (its base path) and its runs; `history` returns the promotion log, the oldest first."""
        self._ledger, self._hooks, self._model = ledger, hooks, model
        self._history, self._clock = history, clock

    def deliver(self) -> None:
        """Send what is due. A webhook that is new begins with what changes from now on."""
        if not self._hooks:
            return
        changes = self._history()
        for hook in self._hooks:
            name = f"webhook {digest_of(hook.url)[:32]}"
            state = self._ledger.control(name)
            if state is None:
                newest = self._ledger.newest_change()
                state = {"model": changes[-1].revision if changes else 0, "run": newest, "failed": 0, "tried_at": 0.0}
                self._ledger.set_control(name, state)
            self._deliver(hook, name, dict(state), changes)

    def _deliver(self, hook: WebhookSettings, name: str, state: dict[str, Any], changes: Sequence[Change]) -> None:
        pause = min(_FIRST_PAUSE * 2.0 ** min(state["failed"], 16), _LONGEST_PAUSE)
        if state["failed"] and elapsed(state["tried_at"], self._clock()) < pause:
            return
        for message in self._due(hook, state, changes):
            problem = self._post(hook, message)
            failed = state["failed"] + 1 if problem else 0
            given_up = failed >= hook.attempts
            if problem:
                said = f"{message.type} {message.number} {'given up: ' if given_up else ''}{problem}, attempt {failed}"
                self._ledger.record_notes("webhook", [Note(without_credentials(hook.url), said)])
            if not problem or given_up:
                state |= {message.stream: message.number}
                failed = 0
            state |= {"failed": failed, "tried_at": self._clock()}
            self._ledger.set_control(name, state)
            if failed:
                return

    def _due(self, hook: WebhookSettings, state: Mapping[str, Any], changes: Sequence[Change]) -> list[_Message]:
        """Return what a webhook was not told of yet, each log in its own order, and both by time."""
        told = [one for one in changes if one.revision > state["model"] and one.action in hook.on]
        rows = self._ledger.changes_of_runs(state["run"]) if "run" in hook.on else []
        runs = {run.number: run for run in self._ledger.runs()} if told or rows else {}
        hops = {run.facts.get("pushed_version"): int(run.facts.get("hops", 0)) for run in runs.values()}
        logs: list[list[_Message]] = [[], []]
        for change in told:
            data = {**asdict(change), "model": self._model, "hops": hops.get(change.to_version, 0)}
            at = datetime.fromisoformat(change.at)
            logs[0].append(_Message("model", change.revision, at, f"model.{change.action}", data))
        for row in rows:
            run = runs[int(row["subject"].removeprefix("run "))]
            data = {
                "run": run.number,
                "before": row["before"],
                "state": row["after"],
                "why": row["why"],
                "reason": run.reason,
                "events": list(run.events),
                "run_id": run.facts.get("run_id", ""),
                "version": run.facts.get("pushed_version"),
                "hops": run.facts.get("hops", 0),
            }
            at = datetime.fromtimestamp(row["at"], UTC)
            logs[1].append(_Message("run", row["id"], at, f"run.{row['after']}", data))
        merged = []
        while logs[0] or logs[1]:
            # Clocks may go back within a log; its order is that of its numbers.
            first = min((log for log in logs if log), key=lambda log: log[0].at)
            merged.append(first.pop(0))
        return merged

    def _post(self, hook: WebhookSettings, message: _Message) -> str:
        """Post a message; return what went wrong, or ""."""
        import urllib3

        secret = _secret(hook)
        if secret is None:
            return f"no base64 of {_LEAST_SECRET} bytes or more (openssl rand -base64 32) in {hook.secret_file}"
        content = {"type": message.type, "timestamp": message.at.isoformat(), "data": dict(message.data)}
        body = json.dumps(content, sort_keys=True, default=str).encode()
        ident = f"msg_{digest_of(self._model, message.stream, str(message.number), message.at.isoformat())[:32]}"
        headers = {"Content-Type": "application/json", **signed(secret, ident, int(time.time()), body)}
        try:
            with urllib3.PoolManager(cert_reqs="CERT_REQUIRED", retries=False, timeout=_TIMEOUT_SECONDS) as pool:
                answer = pool.request("POST", hook.url, body=body, headers=headers, redirect=False)
        except urllib3.exceptions.HTTPError as error:
            return f"it cannot be reached ({type(error).__name__})"
        return "" if 200 <= answer.status < 300 else f"it answered {answer.status}"


def signed(secret: bytes, ident: str, at: int, body: bytes) -> dict[str, str]:
    """Return the headers of a message: its id, the POSIX time of this attempt, and the signature of all of it."""
    content = b".".join((ident.encode(), str(at).encode(), body))
    signature = base64.b64encode(hmac.new(secret, content, hashlib.sha256).digest()).decode()
    return {"webhook-id": ident, "webhook-timestamp": str(at), "webhook-signature": f"v1,{signature}"}


def _secret(hook: WebhookSettings) -> bytes | None:
    try:
        text = Path(hook.secret_file).expanduser().read_text(encoding="ascii").strip()
        secret = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except (OSError, ValueError):
        return None
    return secret if len(secret) >= _LEAST_SECRET else None
