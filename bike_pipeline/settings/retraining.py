"""When a run takes place by itself, and what it then does."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from bike_pipeline.settings.metadata import DatabaseName
from bike_pipeline.settings.section import Count, Positive, Section

Seconds = Annotated[float, Field(ge=0.0, le=366 * 86_400)]
ShortTime = Annotated[float, Field(ge=0.05, le=3600.0)]


class PolicySettings(Section):
    """When an event gets a run; see `retraining.policy`.

    Attributes:
        debounce_seconds: an event waits until it was not seen anew for so long.
        cool_down_seconds: by trigger, the least time between the claims of two of its runs.
        least_new_rows: new rows are worth a run of their own if all that wait are at least so many; fewer wait for more
            of them, or for a run that takes place anyway.
        runs_per_day: most runs that begin within 24 hours.
        attempts: an event whose runs fail so often is dead, until a person tries it again.
        backoff_seconds: an event whose run failed waits so long; twice as long after each further failure.
        max_backoff_seconds: the longest such wait.
        most_hops: an event with more runs in its chain of causes is dead: the runs cause each other.
    """

    debounce_seconds: Seconds = 0.0
    cool_down_seconds: dict[str, Seconds] = Field(default_factory=dict)
    least_new_rows: Annotated[int, Field(ge=0)] = 1344
    runs_per_day: Count = 24
    attempts: Count = 5
    backoff_seconds: Seconds = 30.0
    max_backoff_seconds: Seconds = 3600.0
    most_hops: Annotated[int, Field(ge=0, le=100)] = 3


class StorageTriggerSettings(Section):
    """What the trigger `storage` watches.

    Attributes:
        sources: folders, and addresses such as s3://bucket/rows or gs://bucket/rows; what is directly in them is taken.
        settle_seconds: a file of a folder is taken when it has stayed as it is for so long.
        remote_seconds: pause between two lists of an address, since each costs money.
        most_megabytes: a larger file is not taken.
        queue: address of an SQS queue with notifications of S3, which make a list come sooner; empty for none.
    """

    sources: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    settle_seconds: ShortTime = 0.4
    remote_seconds: ShortTime = 30.0
    most_megabytes: Count = 1024
    queue: str = ""


class ConceptDriftSettings(Section):
    """When the trigger `concept-drift` asks for a run.

    Attributes:
        max_age_hours: what the monitor reported, or Alertmanager sent, before that counts no longer.
        data: file or address of labelled rows that a run ingests first; empty for those of the span store alone.
    """

    max_age_hours: Positive = 48.0
    data: str = ""


class ScheduleSettings(Section):
    """When the trigger `schedule` asks for a run.

    Attributes:
        cron: minute, hour, day, month and weekday as in crontab(5), such as "0 3 * * 1"; empty for never.
        zone: the IANA time zone that these are of.
    """

    cron: str = ""
    zone: str = "UTC"


class WebhookSettings(Section):
    """Who is told of what changes; see `retraining.webhooks`.

    Attributes:
        url: where it is posted to, by https; by http on this machine alone, or with `allow_http`.
        secret_file: file with the secret that signs it: base64, as it is or behind "whsec_".
        on: what is told: changes of a version's state as the promotion log has them, and of a run's ("run").
        attempts: given up after so many, and noted in the ledger.
        allow_http: whether it may go in the clear.
    """

    url: str
    secret_file: Annotated[str, Field(min_length=1)]
    on: tuple[Literal["validate", "refuse", "promote", "rollback", "shift", "abort", "run"], ...] = (
        "validate",
        "refuse",
        "promote",
        "rollback",
        "shift",
        "abort",
        "run",
    )
    attempts: Count = 12
    allow_http: bool = False

    @model_validator(mode="after")
    def _safe(self) -> Self:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("a webhook's url begins with https://")
        try:
            local = parts.hostname == "localhost" or ip_address(parts.hostname).is_loopback
        except ValueError:
            local = False
        if parts.scheme == "http" and not (local or self.allow_http):
            raise ValueError("a webhook goes by https, unless allow_http is set")
        return self


class RetrainingSettings(Section):
    """What `bike-pipeline watch` looks at, and when it runs the pipeline.

    Attributes:
        path: what the loop keeps: uploads until they are ingested, and the ledger where that is a file; empty for
            `<workspace>/retraining`.
        database: with `metadata.mysql`, the database on that server that holds the ledger; empty for that of the
            metadata. Each model that is retrained by itself has its own.
        triggers: which triggers are asked; see `retraining.triggers`.
        incoming: folder that the trigger `repository-data` watches, relative to the project's; empty for none.
        runner: where runs take place; a name as of `bike-pipeline run --runner`.
        poll_seconds: pause between two looks at everything that is near at hand.
        webhooks: who is told of changes of state.
        listen: HOST:PORT where `watch` takes notifications; empty for nowhere.
        token_file: file with the token that those who notify send.
        lease_seconds: after so long without a sign of life, another process takes the loop over.
    """

    path: str = ""
    database: DatabaseName | Literal[""] = ""
    triggers: tuple[str, ...] = ("code", "repository-data", "storage", "concept-drift", "schedule")
    incoming: str = "data/incoming"
    runner: str = "local"
    poll_seconds: ShortTime = 0.25
    listen: str = ""
    token_file: str = ""
    lease_seconds: ShortTime = 30.0
    policy: PolicySettings = PolicySettings()
    storage: StorageTriggerSettings = StorageTriggerSettings()
    concept_drift: ConceptDriftSettings = ConceptDriftSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    webhooks: tuple[WebhookSettings, ...] = ()
