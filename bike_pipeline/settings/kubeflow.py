"""What a run on Kubeflow Pipelines or Vertex AI needs: image, storage, metadata, and what each stage may use."""

from __future__ import annotations

import posixpath
import re
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from bike_pipeline.settings.metadata import METADATA_PASSWORD, METADATA_PASSWORD_FILE, METADATA_USER, MySql
from bike_pipeline.settings.section import Count, Positive, Section
from bike_pipeline.stages import Stage

# YAML and JSON hold its value.
StageName = Annotated[Stage, Field(strict=False)]
EnvironmentName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
# Kubernetes' names of objects (RFC 1123 subdomains) and its quantities.
ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
Cpu = Annotated[str, Field(pattern=r"^([0-9]+(\.[0-9]{1,3})?|[0-9]+m)$")]
Memory = Annotated[str, Field(pattern=r"^[0-9]+(Ki|Mi|Gi|Ti|k|M|G|T)?$")]
KubernetesName = Annotated[str, Field(pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$")]
AbsoluteFolder = Annotated[str, Field(pattern=r"^/[^:]*[^/:]$")]
# The stores that KFP's launcher knows, and where its containers see them.
ROOT_SCHEMES: Final = ("minio", "s3", "gs")


class Accelerator(Section):
    """GPUs or other devices; `type` is the cluster's resource name ("nvidia.com/gpu"), or Vertex AI's ("NVIDIA_L4")."""

    type: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9./_-]*$")]
    count: Count = 1


class Toleration(Section):
    """A taint of nodes that a stage may be put on all the same; see Kubernetes' Toleration."""

    key: str = ""
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""


class StageResources(Section):
    """What one stage gets; a stage's own entry is laid over `default_resources` key by key.

    `cpu` and `memory` are limit and request in Kubernetes' notation ("2", "500m"; "4Gi"); `retries` says how often a
    failed task is started again.
    """

    cpu: Cpu | None = None
    memory: Memory | None = None
    accelerator: Accelerator | None = None
    node_selector: dict[str, str] | None = None
    tolerations: tuple[Toleration, ...] | None = None
    retries: Annotated[int, Field(ge=0, le=10)] | None = None


class Volume(Section):
    """A persistent volume claim that every stage mounts.

    Attributes:
        claim: the claim's name; it exists already, and allows ReadWriteMany if stages run on several nodes.
        mount_path: its place in the containers.
        sub_path: a folder inside it; empty for its root.
    """

    claim: ObjectName
    mount_path: AbsoluteFolder
    sub_path: str = ""


class Secret(Section):
    """A Kubernetes secret whose keys become environment variables: {key in the secret: variable}."""

    name: ObjectName
    keys: dict[str, EnvironmentName]


class ClusterMetadata(Section):
    """Where ML Metadata is in the cluster: a file on a mounted volume (for one run at a time), or a server."""

    sqlite_file: str = ""
    mysql: MySql | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if bool(self.sqlite_file) == bool(self.mysql):
            raise ValueError('metadata takes either sqlite_file or mysql (sqlite_file: "" beside mysql)')
        return self

    @property
    def address(self) -> str:
        """The store as one address, without user and password."""
        return self.mysql.address if self.mysql else f"sqlite://{self.sqlite_file}"


class VertexSettings(Section):
    """What only Vertex AI asks for.

    Attributes:
        pipeline_root: where Vertex AI keeps artifacts (gs://…).
        serving_folder: the models' base folder as its containers see it, such as /gcs/BUCKET/serving.
        span_store: folder or URL of the span store.
    """

    pipeline_root: Annotated[str, Field(pattern=r"^(gs://[^/]+(/.*)?)?$")]
    serving_folder: Annotated[str, Field(pattern=r"^(/gcs/.+)?$")]
    span_store: str
    labels: dict[str, str]


class KubeflowClientSettings(Section):
    """How `submit` and `schedule` reach Kubeflow Pipelines and prove who they are.

    Secrets are never settings: a token or cookies come from the environment (`KF_PIPELINES_TOKEN`,
    `KF_PIPELINES_COOKIES`) or from a file that is named here.

    Attributes:
        endpoint: address of the API; empty for `KF_PIPELINES_ENDPOINT`, then the cluster that this process runs in,
            then the current context of the kubeconfig.
        ui_endpoint: address of the web pages, for the links that are printed; empty for `endpoint`.
        namespace: where Kubeflow Pipelines is installed; used only without an endpoint, as is `kube_context`.
        user_namespace: the profile that experiments, pipelines and runs belong to; empty on a single-user installation.
        kube_context: context of the kubeconfig; empty for the current one.
        experiment: the experiment that runs are listed under; empty for the pipeline's name.
        authentication: `none`; `token` (a bearer token); `cookies` (of a signed-in browser session);
            `service_account` (the audience-bound token that the kubelet mounts and renews); `iap` (Google's
            Identity-Aware Proxy).
        token_file: file with the token, for `token` and `service_account`; read again for every request.
        cookies_file: file with the value of the Cookie header.
        iap_client_id: OAuth client id of the proxy.
        ca_cert: file with the certificates to trust (PEM); empty for Mozilla's.
        verify_tls: off only for a test installation with a self-signed certificate.
        poll_seconds: how often `--wait` asks.
    """

    endpoint: Annotated[str, Field(pattern=r"^(https?://\S+)?$")]
    ui_endpoint: Annotated[str, Field(pattern=r"^(https?://\S+)?$")]
    namespace: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    user_namespace: KubernetesName
    kube_context: str
    experiment: str
    authentication: Literal["none", "token", "cookies", "service_account", "iap"]
    token_file: str
    cookies_file: str
    iap_client_id: str
    ca_cert: str
    verify_tls: bool
    request_timeout_seconds: Positive
    poll_seconds: Positive

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.authentication == "iap" and not self.iap_client_id:
            raise ValueError("authentication 'iap' needs iap_client_id")
        if self.kube_context and self.endpoint:
            raise ValueError("kube_context is used only without an endpoint; leave one of the two empty")
        return self


class KubeflowSettings(Section):
    """A run on Kubeflow Pipelines.

    Attributes:
        image: the container image with this package; every stage runs in it.
        image_pull_secrets: secrets for a private registry.
        project_folder: the project's folder in the image, which holds `configs/`.
        service_account: the Kubernetes service account of a run's pods; empty for the installation's default.
        pipeline_root: object store for artifacts (minio://, s3:// or gs://).
        artifact_folder: a folder below a volume for artifacts instead of the object store; empty for the object store.
        span_store: folder or URL of the span store as the containers see it.
        serving_folder: base folder of served models as the containers see it, on a volume.
        environment: plain environment variables of every stage; no secrets.
        caching: let KFP answer stages from earlier runs. Stages that look at data or models from outside never are.
        default_resources: what a stage gets if it has no entry of its own in `resources`.
    """

    image: Annotated[str, Field(pattern=r"^[a-z0-9][A-Za-z0-9._/:@-]*$")]
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"]
    image_pull_secrets: tuple[ObjectName, ...]
    project_folder: AbsoluteFolder
    service_account: Annotated[str, Field(pattern=r"^([a-z0-9]([-a-z0-9.@]*[a-z0-9])?)?$")] = ""
    pipeline_root: Annotated[str, Field(pattern=rf"^({'|'.join(ROOT_SCHEMES)})://[^/?]+(/[^?]*)?$")]
    artifact_folder: str
    volumes: tuple[Volume, ...]
    span_store: str
    serving_folder: str
    metadata: ClusterMetadata
    environment: dict[EnvironmentName, str]
    secrets: tuple[Secret, ...]
    caching: bool
    default_resources: StageResources
    resources: dict[StageName, StageResources]
    vertex: VertexSettings
    client: KubeflowClientSettings

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        mounts = [volume.mount_path for volume in self.volumes]
        claims = [volume.claim for volume in self.volumes]
        if len(set(mounts)) != len(mounts) or len(set(claims)) != len(claims):
            # KFP makes one pod volume a claim and mount; the same claim twice is refused by the API server.
            raise ValueError("volumes: every claim and every mount_path stands there once")
        local_store = "" if re.match(r"^[a-z0-9]+://", self.span_store) else self.span_store
        for setting, path in (
            ("artifact_folder", self.artifact_folder),
            ("serving_folder", self.serving_folder),
            ("metadata.sqlite_file", self.metadata.sqlite_file),
            ("span_store", local_store),
        ):
            # What a container writes elsewhere is gone when it ends.
            if path and not any(posixpath.normpath(path).startswith(f"{mount}/") for mount in mounts):
                raise ValueError(
                    f"{setting}: '{path}' is below no mount_path of `volumes`, so it would be lost with the pod"
                )
        variables = [variable for secret in self.secrets for variable in secret.keys.values()]
        named = [*variables, *self.environment]
        if twice := sorted({name for name in named if named.count(name) > 1}):
            raise ValueError(f"environment and secrets: set twice: {', '.join(twice)}")
        if METADATA_PASSWORD in self.environment:
            raise ValueError(f"environment: {METADATA_PASSWORD} belongs into `secrets`, else it stands in the spec")
        passwords = {METADATA_PASSWORD, METADATA_PASSWORD_FILE}
        if self.metadata.mysql is not None and (METADATA_USER not in named or not passwords & set(named)):
            raise ValueError(
                f"metadata.mysql: `secrets` must set {METADATA_USER} and {METADATA_PASSWORD} "
                f"(or `environment` {METADATA_PASSWORD_FILE})"
            )
        return self

    def stage(self, name: str) -> StageResources:
        """Return what a stage gets: its own entry over the default, key by key."""
        own: Any = self.resources.get(name)  # type: ignore[call-overload]
        values = own.model_dump(exclude_none=True) if own else {}
        return StageResources.model_validate({**self.default_resources.model_dump(exclude_none=True), **values})
