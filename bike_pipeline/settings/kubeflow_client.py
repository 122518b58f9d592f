"""How `submit` and `schedule` reach Kubeflow Pipelines and prove who they are."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bike_pipeline.settings.section import Positive, Section

KubernetesName = Annotated[str, Field(pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$")]


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
            raise ValueError("kube_context is used only where no endpoint is given; leave one of the two empty")
        return self
