"""Whether the places that a cluster's stages write to, on mounted volumes, can be written by this process.

The image's user is no root, and Kubernetes leaves a new volume to root unless a pod has an `fsGroup`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from bike_pipeline.errors import StorageError
from bike_pipeline.settings.kubeflow import KubeflowSettings

OWNER_JOB = "configs/kubernetes/volume-owner.yaml"


def mounted(kubeflow: KubeflowSettings) -> tuple[str, ...]:
    """Return the mount paths of the volumes that are there, as in a container of the pipeline."""
    return tuple(volume.mount_path for volume in kubeflow.volumes if Path(volume.mount_path).is_dir())


def problems(kubeflow: KubeflowSettings) -> Iterator[StorageError]:
    """Yield an error for every place that stages write to, on a volume that is mounted, and this process cannot."""
    folders = tuple(f"{mount}/" for mount in mounted(kubeflow))
    database = kubeflow.metadata.sqlite_file
    places = (os.path.dirname(database), kubeflow.artifact_folder, kubeflow.serving_folder)
    for place in dict.fromkeys(place for place in places if f"{place}/".startswith(folders)):
        standing = Path(place)
        while not standing.exists():
            standing = standing.parent
        if not os.access(standing, os.W_OK | os.X_OK, effective_ids=True):
            yield _refused(place, standing)
    if Path(database).is_file() and not os.access(database, os.R_OK | os.W_OK, effective_ids=True):
        yield _refused(database, Path(database))


def _refused(place: str, standing: Path) -> StorageError:
    found = standing.stat()
    folder = "it" if str(standing) == place else str(standing)
    return StorageError(
        f"user {os.geteuid()} of group {os.getegid()} cannot write there: {folder} belongs to user {found.st_uid}, "
        f"group {found.st_gid}, with mode {stat.S_IMODE(found.st_mode):o}",
        where=place,
        fix=f"give the volume to the image's user, once: `kubectl apply -n NAMESPACE -f {OWNER_JOB}`; or set fsGroup "
        "for all workflows (docs/kubeflow-cluster.md)",
    )
