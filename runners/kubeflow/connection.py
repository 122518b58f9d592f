"""The connection to Kubeflow Pipelines: who we are, how long we wait, and what a refusal means in one line."""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bike_pipeline import extras
from bike_pipeline.errors import BikePipelineError, ClusterError, ConfigurationError
from bike_pipeline.settings.kubeflow import KubeflowClientSettings

ENDPOINT_VARIABLE = "KF_PIPELINES_ENDPOINT"
UI_VARIABLE = "KF_PIPELINES_UI_ENDPOINT"
TOKEN_VARIABLE = "KF_PIPELINES_TOKEN"  # noqa: S105 (the name of a variable)
COOKIES_VARIABLE = "KF_PIPELINES_COOKIES"
_UNAUTHORIZED = (401, 403)
_SIGN_IN = "see kubeflow.client.authentication in the settings; a token or cookies may have expired"


def endpoint_of(settings: KubeflowClientSettings) -> str:
    """Return the address that is asked for, or a text that says what stands in for it."""
    given = settings.endpoint or os.environ.get(ENDPOINT_VARIABLE, "")
    if given:
        return given.rstrip("/")
    return f"kubeconfig context {settings.kube_context or '(current)'}, namespace {settings.namespace}"


def ui_of(settings: KubeflowClientSettings) -> str:
    """Return the address of the web pages; without one, the path that they have inside the cluster's dashboard."""
    given = settings.ui_endpoint or os.environ.get(UI_VARIABLE, "") or settings.endpoint
    return (given or os.environ.get(ENDPOINT_VARIABLE, "") or "/pipeline").rstrip("/")


def connect(settings: KubeflowClientSettings) -> Any:
    """Return a `kfp.Client` that is signed in, answers within the time limit, and was reached once.

    Raises:
        ClusterError: the address cannot be reached, does not answer, or refuses who we are.
        ConfigurationError: a token, cookie or certificate file is missing, or there is no address to ask.
        MissingExtraError: the extra `kubeflow` is not installed.
    """
    extras.require("kubeflow", "talking to Kubeflow Pipelines")
    identity = _identity(settings)
    host = settings.endpoint or os.environ.get(ENDPOINT_VARIABLE, "")
    if not host:
        _need_cluster(settings)
    with explained(settings), quiet():
        client = _client_class(settings)(
            host=host or None,
            namespace=settings.namespace,
            kube_context=settings.kube_context or None,
            ssl_ca_cert=_existing(settings.ca_cert, "ca_cert") or None,
            verify_ssl=settings.verify_tls,
            ui_host=ui_of(settings),
            **identity,
        )
        if settings.user_namespace or settings.namespace != "kubeflow":
            # kfp takes an installation elsewhere than in `kubeflow` for the user's namespace.
            client.set_user_namespace(settings.user_namespace)
        client.get_kfp_healthz()
        return client


def _client_class(settings: KubeflowClientSettings) -> Any:
    """Return kfp's client with a time limit for each request, one attempt to reach it, and no state of its own."""
    import kfp

    # The generated client ignores a single number that is no integer.
    limit = (settings.request_timeout_seconds, settings.request_timeout_seconds)

    class _Client(kfp.Client):
        def _load_context_setting_or_default(self) -> None:
            # kfp keeps a namespace in the home folder; what counts here is in the settings.
            self._context_setting = {"namespace": settings.user_namespace}

        def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
            rest = self._healthz_api.api_client.rest_client
            if not getattr(rest, "limited", False):
                request = rest.request

                def within_limit(*args: Any, **options: Any) -> Any:
                    return request(*args, **{**options, "_request_timeout": limit})

                rest.request = within_limit
                rest.limited = True
            return self._healthz_api.healthz_service_get_healthz()

        def set_user_namespace(self, namespace: str) -> None:
            self._context_setting["namespace"] = namespace

    return _Client


def _identity(settings: KubeflowClientSettings) -> dict[str, Any]:
    """Return the arguments of `kfp.Client` that say who we are."""
    match settings.authentication:
        case "token":
            token = os.environ.get(TOKEN_VARIABLE, "").strip()
            if token:
                return {"existing_token": token}
            return {"credentials": _token_volume(settings, TOKEN_VARIABLE)}
        case "service_account":
            return {"credentials": _token_volume(settings, "")}
        case "cookies":
            cookies = os.environ.get(COOKIES_VARIABLE, "").strip()
            if not cookies:
                if not settings.cookies_file:
                    raise _no_secret("cookies", COOKIES_VARIABLE, "cookies_file")
                cookies = _text(_existing(settings.cookies_file, "cookies_file"))
            return {"cookies": cookies}
        case "iap":
            return {"client_id": settings.iap_client_id}
        case _:
            return {}


def _token_volume(settings: KubeflowClientSettings, variable: str) -> Any:
    """Return credentials that read the token file again for every request."""
    from kfp.client import set_volume_credentials

    if variable and not settings.token_file:
        raise _no_secret("token", variable, "token_file")
    credentials = set_volume_credentials.ServiceAccountTokenVolumeCredentials(path=settings.token_file or None)
    path = settings.token_file or credentials._token_path  # noqa: SLF001 (kfp has its default nowhere else)
    if not _text(_existing(path, "token_file")):
        raise ConfigurationError("the token file is empty", where=path, fix="write the token into it")
    return credentials


def _no_secret(kind: str, variable: str, setting: str) -> ConfigurationError:
    return ConfigurationError(
        f"authentication '{kind}' has nothing to show",
        where="kubeflow.client.authentication",
        fix=f"set the variable {variable}, or kubeflow.client.{setting}",
    )


def _existing(path: str, setting: str) -> str:
    if path and not Path(path).is_file():
        raise ConfigurationError("no such file", where=path, fix=f"correct kubeflow.client.{setting}")
    return path


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read it ({error})", where=path, fix="check its permissions") from None


def _need_cluster(settings: KubeflowClientSettings) -> None:
    """Stop where neither a pod's service account nor a kubeconfig tells which cluster is meant."""
    from kubernetes import config

    with contextlib.suppress(config.ConfigException):
        config.load_incluster_config()
        return
    try:
        names = {context["name"] for context in config.list_kube_config_contexts()[0]}
    except config.ConfigException as error:
        raise ConfigurationError(
            f"no address of Kubeflow Pipelines ({str(error).rstrip('.')})",
            where="kubeflow.client.endpoint",
            fix=f"set it, or the variable {ENDPOINT_VARIABLE}, or make a kubeconfig",
        ) from None
    if settings.kube_context and settings.kube_context not in names:
        raise ConfigurationError(
            f"the kubeconfig has no context '{settings.kube_context}'",
            where="kubeflow.client.kube_context",
            fix=f"choose one of: {', '.join(sorted(names))}",
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what kfp prints (links, in its own words) and warns of away from the screen."""
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def explained(settings: KubeflowClientSettings, what: str = "") -> Iterator[None]:
    """Turn what the API or the network refuses into one line.

    Args:
        settings: tells the address.
        what: what was being done, as half a sentence such as "uploading the pipeline".

    Raises:
        ClusterError: always instead of the client's own kinds of errors.
    """
    import urllib3
    from kfp_server_api.exceptions import OpenApiException

    try:
        yield
    except BikePipelineError:
        raise
    except OpenApiException as error:
        raise _refusal(settings, what, error) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise _unreachable(settings, error) from error


def _refusal(settings: KubeflowClientSettings, what: str, error: Any) -> ClusterError:
    status = getattr(error, "status", None)
    where = endpoint_of(settings)
    said = _message(error)
    doing = f"{what}: " if what else ""
    if status in _UNAUTHORIZED:
        verb = "does not know who we are" if status == 401 else "does not let us do this"
        return ClusterError(f"{doing}Kubeflow Pipelines {verb} ({status}: {said})", where=where, fix=_SIGN_IN)
    if status == 404:
        return ClusterError(
            f"{doing}not found ({said})", where=where, fix="check the address, and that it is Kubeflow Pipelines 2.x"
        )
    if status is not None and 400 <= status < 500:
        return ClusterError(f"{doing}refused ({status}: {said})", where=where)
    return ClusterError(
        f"{doing}Kubeflow Pipelines failed ({status}: {said})", where=where, fix="see the logs of its API server"
    )


def _message(error: Any) -> str:
    """Return the sentence in an error's body: gRPC's `message` or `error`, or the plain text's first line."""
    body = getattr(error, "body", "") or ""
    if isinstance(body, bytes):
        body = body.decode("utf-8", "replace")
    try:
        content = json.loads(body)
    except ValueError:
        content = None
    if isinstance(content, dict):
        for key in ("error_message", "message", "error", "error_details"):
            if isinstance(content.get(key), str) and content[key]:
                return _line(content[key])
    return _line(body) or str(getattr(error, "reason", "") or error)


def _line(text: str, longest: int = 400) -> str:
    joined = " ".join(text.split()).rstrip(".")
    return joined if len(joined) <= longest else f"{joined[: longest - 1]}…"


def _unreachable(settings: KubeflowClientSettings, error: Exception) -> ClusterError:
    import urllib3

    reason: Any = getattr(error, "reason", None) or error
    # urllib3 counts a refused connection among the timeouts.
    refused = isinstance(reason, urllib3.exceptions.NewConnectionError)
    if isinstance(reason, urllib3.exceptions.TimeoutError | TimeoutError) and not refused:
        text = f"no answer within {settings.request_timeout_seconds:g} s"
    elif isinstance(reason, urllib3.exceptions.SSLError):
        text = f"its certificate is not trusted ({_line(str(reason))})"
        return ClusterError(
            text, where=endpoint_of(settings), fix="name its authority's certificates in kubeflow.client.ca_cert"
        )
    else:
        text = f"cannot be reached ({_line(str(reason)).rsplit(': ', 1)[-1]})"
    return ClusterError(
        text,
        where=endpoint_of(settings),
        fix="check the address, or open a way to it: kubectl port-forward -n kubeflow svc/ml-pipeline 8888:8888",
    )
