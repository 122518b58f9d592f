"""Where a model server is, how it is spoken to, who asks, and for how long: one value that every client is made of."""

from __future__ import annotations

import os
import random
import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar
from urllib.parse import urlsplit

from bike_pipeline import features
from bike_pipeline.errors import ConfigurationError
from bike_pipeline.serving.clients.errors import ClientError, timed_out

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings
    from bike_pipeline.settings.serving import ServingClientSettings

Value = TypeVar("Value")
Protocol = Literal["rest", "grpc"]
TOKEN_VARIABLE = "BIKE_SERVING_TOKEN"  # noqa: S105 - its name, not its value
API_KEY_VARIABLE = "BIKE_SERVING_API_KEY"
API_KEY_HEADER = "x-api-key"
# TF Serving's own ports.
PORTS: dict[Protocol, int] = {"rest": 8501, "grpc": 8500}
_SCHEMES: dict[str, tuple[Protocol, bool]] = {
    "http": ("rest", False),
    "https": ("rest", True),
    "grpc": ("grpc", False),
    "grpcs": ("grpc", True),
}
_FORM = "write it as host:port, with http://, https://, grpc:// or grpcs:// before it if need be"


class Deadline:
    """The moment by which a call must have ended, by a clock that never goes back."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._ends = clock() + seconds

    def remaining(self, where: str) -> float:
        """Return the seconds that are left, more than 0, or raise a TimedOutError."""
        left = self.left()
        if left <= 0:
            raise timed_out(self.seconds, where)
        return left

    def left(self) -> float:
        return self._ends - self._clock()


@dataclass(frozen=True)
class RetryPolicy:
    """When a request is sent again: exponential back-off with full jitter.

    The wait before try n + 1 is drawn evenly from 0 to min(longest, first × 2^(n-1)) seconds (M. Brooker, "Exponential
    Backoff And Jitter", AWS Architecture Blog, 2015), or is what the server asked for. A wait that would end after the
    deadline is not begun: the last error is raised at once.
    """

    attempts: int = 5
    first: float = 0.05
    longest: float = 2.0

    def run(self, send: Callable[[], Value], deadline: Deadline, sleep: Callable[[float], None] = time.sleep) -> Value:
        """Return what `send` returns, called again after each error that another try may mend."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return send()
            except ClientError as error:
                wait = error.retry_after
                if wait is None:
                    wait = random.uniform(0, min(self.longest, self.first * 2.0 ** (attempt - 1)))  # noqa: S311
                if not error.retryable or attempt >= self.attempts or wait >= deadline.left():
                    if attempt > 1:
                        error.what = f"{error.what}, {attempt} tries"
                    raise
            sleep(wait)


@dataclass(frozen=True)
class Connection:
    """Where a model server is, how it is spoken to, and who asks.

    Attributes:
        host: name or address, an IPv6 one without brackets.
        version: the version that answers; None for the newest one.
        label: the version label that answers, instead of a version.
        signature: name of the signature; empty for the served one.
        answer: name of its output that is the answer.
        ca_file: certificates to trust; empty for those of this machine.
        certificate: this client's certificate, with its key; empty for none.
        timeout: seconds that a call may take as a whole.
        rows_per_request: rows sent in one request.
    """

    host: str
    port: int
    protocol: Protocol
    model: str
    version: int | None = None
    label: str = ""
    signature: str = ""
    answer: str = features.LABEL
    tls: bool = False
    ca_file: str = ""
    certificate: str = ""
    key: str = ""
    token: str = field(default="", repr=False)
    api_key: str = field(default="", repr=False)
    timeout: float = 30.0
    retries: RetryPolicy = field(default_factory=RetryPolicy)
    rows_per_request: int = 10_000

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def where(self) -> str:
        scheme = next(name for name, spoken in _SCHEMES.items() if spoken == (self.protocol, self.tls))
        return f"{scheme}://{self.authority}"

    @property
    def credentials(self) -> dict[str, str]:
        """Headers or metadata that say who asks; names in lower case, as gRPC wants them."""
        found = {"authorization": self.token and f"Bearer {self.token}", API_KEY_HEADER: self.api_key}
        return {name: value for name, value in found.items() if value}

    def pem(self, path: str) -> bytes | None:
        """Return the content of a certificate or key file; None if no file is named."""
        return _content_of(path) if path else None

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return what verifies the server and proves who we are; None without TLS."""
        if not self.tls:
            return None
        for path in (self.ca_file, self.certificate, self.key):
            self.pem(path)
        where = self.ca_file
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self.certificate:
                where = self.certificate
                context.load_cert_chain(self.certificate, self.key)
        except (ssl.SSLError, OSError) as error:
            raise ConfigurationError(
                f"it holds no usable certificate or key ({error.args[-1]})", where=where, fix="name PEM files"
            ) from None
        return context


def connection(
    settings: Settings,
    address: str = "",
    *,
    protocol: Protocol | None = None,
    version: int | None = None,
    label: str = "",
    timeout: float | None = None,
) -> Connection:
    """Return the connection that the settings, the environment and the command line describe.

    Address, protocol and timeout go before those of `serving.client`; a scheme in the address must agree with the
    protocol.

    Raises:
        ConfigurationError: the address or a secret is malformed, or both a version and a label are given.
    """
    if version is not None and label:
        raise ConfigurationError("a version and a label are given", where="predict", fix="leave one of them out")
    made = connection_of(settings.serving.client, settings.serving.model_name, address, protocol)
    seconds = made.timeout if timeout is None else timeout
    answer = features.ANSWERS[settings.training.target].output
    return replace(made, version=version, label=label, timeout=seconds, answer=answer)


def connection_of(
    client: ServingClientSettings, model: str, address: str = "", protocol: Protocol | None = None
) -> Connection:
    """Return the connection to a model that the section `serving.client` and the environment describe."""
    tls = client.tls or bool(client.ca_file or client.certificate)
    host, port, spoken, encrypted = _address(address or client.address, protocol, client.protocol, tls)
    return Connection(
        host=host,
        port=port,
        protocol=spoken,
        model=model,
        tls=encrypted,
        ca_file=_expanded(client.ca_file),
        certificate=_expanded(client.certificate),
        key=_expanded(client.key),
        token=_secret(TOKEN_VARIABLE),
        api_key=_secret(API_KEY_VARIABLE),
        timeout=client.timeout_seconds,
        retries=RetryPolicy(client.attempts, client.first_wait_seconds, client.max_wait_seconds),
        rows_per_request=client.rows_per_request,
    )


def _address(text: str, asked: Protocol | None, default: Protocol, tls: bool) -> tuple[str, int, Protocol, bool]:
    """Return host, port, protocol and whether it is encrypted."""
    scheme, slashes, rest = text.partition("://")
    if not slashes:
        scheme, rest = "", text
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    surplus = bool(host) and (parts.path not in ("", "/") or parts.query or parts.username is not None)
    if not host or surplus or not re.fullmatch(r"[\w.:%-]+", host) or (scheme and scheme not in _SCHEMES):
        raise ConfigurationError("it is no address of a model server", where=text or "the address", fix=_FORM)
    protocol, encrypted = _SCHEMES.get(scheme, (asked or default, tls))
    if asked is not None and asked != protocol:
        raise ConfigurationError(f"its scheme says {protocol}, --protocol says {asked}", where=text, fix=_FORM)
    return host, PORTS[protocol] if port is None else port, protocol, encrypted


def _expanded(path: str) -> str:
    return str(Path(path).expanduser()) if path else ""


def _content_of(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        reason = f"cannot read it ({error.strerror or error})"
        raise ConfigurationError(reason, where=path, fix="correct serving.client's file names") from None


def _secret(variable: str) -> str:
    value = os.environ.get(variable, "").strip()
    if not value.isascii() or not value.isprintable():
        raise ConfigurationError(
            "it holds what no header can carry", where=f"the variable {variable}", fix="set it to printable ASCII"
        )
    return value
