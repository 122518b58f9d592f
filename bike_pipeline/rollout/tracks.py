"""Which versions answer at the same time, and for how many of the requests: the tracks that a gateway routes to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from bike_pipeline.errors import ServerError
from bike_pipeline.model_registry import ModelRegistry
from bike_pipeline.model_registry.deployment import STABLE, STATE_FILE, Deployment

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings

CANARY, CHALLENGER, SHADOW = "canary", "challenger", "shadow"
# What `stable` gives a share of its answers away to; a shadow is asked besides, and nobody waits for it.
ANSWERING = (CANARY, CHALLENGER)
LABELS = (STABLE, *ANSWERING, SHADOW)


class Track(NamedTuple):
    """A version that requests go to.

    Attributes:
        version: its number.
        share: percent of the requests that it answers; for `shadow`, percent that are copied to it.
    """

    version: int
    share: float


def tracks(deployment: Deployment | None, settings: Settings) -> Mapping[str, Track]:
    """Return the tracks by label: `stable` first, then each label that a rollout gave a share, 0 percent too.

    A label without a share is only a name for a version. Where nothing was ever promoted, the newest version is
    `stable`; where no version is pushed, there is no track.

    Args:
        deployment: what is promoted, as `ModelRegistry.deployment` says.
        settings: where the versions are, if `deployment` is None.

    Raises:
        ServerError: the shares come to more than 100 percent, belong to labels that no request is routed by, or
            nothing is `stable`.
    """
    if deployment is None:
        newest = ModelRegistry(settings.serving_path).serving()
        return {} if newest is None else {STABLE: Track(newest, 100.0)}
    where = f"{settings.serving_path}/{STATE_FILE}"
    if unknown := sorted(deployment.shares.keys() - {*ANSWERING, SHADOW}):
        raise ServerError(
            f"the label {unknown[0]} has a share of the requests, and only {', '.join((*ANSWERING, SHADOW))} can",
            where=where,
            fix="take the label away, and give the share to one of these",
        )
    left = 100.0 - sum(deployment.shares.get(label, 0.0) for label in ANSWERING)
    if left < 0:
        raise ServerError(
            f"{' and '.join(ANSWERING)} have {100 - left:g} percent of the requests together",
            where=where,
            fix="make one of the shares smaller",
        )
    stable = deployment.labels.get(STABLE)
    if stable is None:
        if deployment.shares:
            raise ServerError("nothing is stable, so nothing can have a share", where=where, fix="promote a version")
        return {}
    shared = {
        name: Track(deployment.labels[name], deployment.shares[name]) for name in LABELS if name in deployment.shares
    }
    return {STABLE: Track(stable, left), **shared}
