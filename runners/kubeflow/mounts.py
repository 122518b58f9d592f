"""Where a container sees what an artifact's URI names.

KFP's launcher copies the inputs of a task from the object store below /minio, /s3 or /gcs, and what it finds there for
the outputs back. Beam and TensorFlow read folders, not `minio://`, so the stages work on these.
"""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass
from typing import Final

from bike_pipeline.errors import ConfigurationError

# As LocalPathForURI of KFP's launcher (backend/src/v2/component/launcher_v2.go).
FOLDERS: Final = {"minio": "minio", "s3": "s3", "gs": "gcs"}
ROOT_VARIABLE: Final = "BIKE_PIPELINE_MOUNT_ROOT"


@dataclass(frozen=True)
class Mounts:
    """The mapping of one container.

    Attributes:
        root: the folder that the launcher's folders lie in: "/" in a container, any other without a cluster.
        artifact_folder: a folder on a volume that takes the object store's place; "" for the object store.
    """

    root: str = "/"
    artifact_folder: str = ""

    @classmethod
    def of_environment(cls, artifact_folder: str = "") -> Mounts:
        """Return the mapping of this process."""
        return cls(os.environ.get(ROOT_VARIABLE, "/"), artifact_folder)

    def path(self, uri: str) -> str:
        """Return the path that a URI is seen at."""
        scheme, separator, rest = uri.partition("://")
        if not separator or scheme not in FOLDERS:
            raise ConfigurationError(
                "an artifact outside the stores that Kubeflow mounts (minio, s3, gs)",
                where=uri,
                fix="set kubeflow.pipeline_root to one of them",
            )
        return posixpath.join(self.artifact_folder or self.root, FOLDERS[scheme], rest)
