"""Tokens of an issuer and rates, through the real Envoy."""

from __future__ import annotations

import base64
import hmac
import json
import time

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from bike_pipeline.errors import ConfigurationError
from bike_pipeline.rollout.gateway import api_keys
from tests.rollout.gateway.attacking import ask, call, called, gateway_before, status
from tests.serving.server.asking import wait_until

ISSUER, AUDIENCE = "https://login.example.org", "bikes"


@pytest.fixture(scope="module")
def key():
    return rsa.generate_private_key(65537, 2048)


def public(private, kid, algorithm):
    made = jwt.algorithms.get_default_algorithms()[algorithm].to_jwk(private.public_key(), as_dict=True)
    return {**made, "kid": kid, "alg": algorithm, "use": "sig"}


def token(private, kid="one", algorithm="RS256", **claims):
    usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": "dashboard", "exp": time.time() + 600}
    content = {name: value for name, value in {**usual, **claims}.items() if value is not None}
    return jwt.encode(content, private, algorithm, headers={"kid": kid})


def bearer(text):
    return {"Authorization": f"Bearer {text}"}


def forged(header, claims, sign=lambda _: b""):
    """Return a token whose signature is made by hand."""

    def part(content):
        return base64.urlsafe_b64encode(content).rstrip(b"=")

    signed = part(json.dumps(header).encode()) + b"." + part(json.dumps(claims).encode())
    return (signed + b"." + part(sign(signed))).decode()


@pytest.fixture(scope="module")
def issued(server, key, tmp_path_factory):
    """A gateway that believes tokens of one issuer, or API keys; a file of its keys, and an API key."""
    folder = tmp_path_factory.mktemp("issued")
    file = folder / "jwks.json"
    file.write_text(json.dumps({"keys": [public(key, "one", "RS256")]}))
    _, own = api_keys.create(folder / "workspace" / "keys" / "gateway-keys.json", "own")
    issuer = f"jwt: {{jwks_file: {file}, issuer: '{ISSUER}', audience: {AUDIENCE}}}"
    tokens = f"authentication={{methods: [api_keys, jwt], {issuer}}}"
    with gateway_before(server, folder, tokens) as gateway:
        yield gateway, file, own


def test_a_token_of_the_issuer_or_a_key_is_enough(issued, key):
    gateway, _, own = issued
    assert status(gateway.address, headers=bearer(token(key))) == 200
    assert status(gateway.address, own) == 200
    assert status(gateway.address, headers=bearer(own)) == 200
    assert call(gateway.address, metadata=(("authorization", f"Bearer {token(key)}"),)) == "OK"
    wait_until(lambda: {line["bike"].get("client") for line in gateway.lines()} >= {"dashboard"})
    assert token(key).partition(".")[0] not in gateway.access_log.read_text()


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": 1},
        {"exp": None},
        {"nbf": time.time() + 3600},
        {"aud": "other"},
        {"aud": None},
        {"iss": "https://elsewhere.example"},
        {"iss": None},
        {"iss": api_keys.ISSUER, "aud": api_keys.AUDIENCE},
    ],
)
def test_a_token_that_is_expired_early_or_for_others_is_not_believed(issued, key, claims):
    gateway, _, _ = issued
    assert status(gateway.address, headers=bearer(token(key, **claims))) in (401, 403)


def test_only_the_issuers_signature_by_its_own_algorithm_is_believed(issued, key):
    gateway, _, own = issued
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "x", "exp": time.time() + 600}
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    stranger = rsa.generate_private_key(65537, 2048)
    good = token(key)
    head, body, signature = good.split(".")
    wrong = [
        forged({"alg": "none", "kid": "one"}, claims),
        forged({"alg": "None"}, claims),
        # The public key taken for a shared secret.
        forged({"alg": "HS256", "kid": "one"}, claims, lambda signed: hmac.digest(pem, signed, "sha256")),
        forged({"alg": "HS256"}, claims, lambda signed: hmac.digest(pem, signed, "sha256")),
        token(stranger),
        token(stranger, kid="two"),
        token(ec.generate_private_key(ec.SECP256R1()), algorithm="ES256"),
        f"{head}.{body}.",
        f"{head}.{body}",
        f"{head}.{forged({}, {**claims, 'sub': 'admin'}).split('.')[1]}.{signature}",
        # A key whose own name is another's.
        f"{own.split('.')[0]}.{body}.{signature}",
        forged({"alg": "RS256", "kid": "one", "jwk": public(stranger, "one", "RS256")}, claims, lambda _: b"x" * 256),
        good + "A" * 9000,
    ]
    assert status(gateway.address, headers=bearer(good)) == 200
    for text in wrong:
        assert status(gateway.address, headers=bearer(text)) in (401, 431), text[:80]
    with grpc.insecure_channel(gateway.address) as channel:
        for text in wrong[:-1]:
            assert called(channel, (("authorization", f"Bearer {text}"),)) == "UNAUTHENTICATED"


def test_the_issuers_keys_rotate_in_a_running_gateway(issued, key):
    gateway, file, _ = issued
    before, new = file.read_text(), ec.generate_private_key(ec.SECP256R1())
    old = token(key)
    file.write_text(json.dumps({"keys": [public(new, "two", "ES256")]}))
    renewed = token(new, kid="two", algorithm="ES256")
    wait_until(lambda: status(gateway.address, headers=bearer(renewed)) == 200)
    assert status(gateway.address, headers=bearer(old)) == 401
    # A set that is none changes nothing.
    for broken in ("", "[]", '{"keys": []}', '{"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "three"}]}'):
        told = gateway.errors.read_text().count("the last good keys stay")
        file.write_text(broken)
        wait_until(lambda told=told: gateway.errors.read_text().count("the last good keys stay") >= min(told + 1, 2))
        assert status(gateway.address, headers=bearer(renewed)) == 200
    file.write_text(before)
    wait_until(lambda: status(gateway.address, headers=bearer(old)) == 200)


@pytest.mark.parametrize(
    "content", ["", "[]", '{"keys": []}', '{"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "a"}]}', '{"keys": 5}']
)
def test_a_set_without_a_public_key_is_refused_at_the_start(tmp_path, content):
    (tmp_path / "jwks.json").write_text(content)
    with pytest.raises(ConfigurationError, match=r"JSON|no public key"):
        api_keys.public_keys(tmp_path / "jwks.json")


def test_a_private_key_in_a_set_goes_no_further(tmp_path, key):
    made = {**public(key, "one", "RS256"), "d": "secret"}
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [made]}))
    assert "secret" not in api_keys.public_keys(tmp_path / "jwks.json")


def test_who_asks_too_often_is_told_when_to_come_back_and_holds_nobody_else_up(server, tmp_path):
    file = tmp_path / "workspace" / "keys" / "gateway-keys.json"
    (_, one), (_, other) = api_keys.create(file, "one"), api_keys.create(file, "other")
    limits = "limits={requests_per_second: 0.001, burst: 3}"
    with gateway_before(server, tmp_path, "authentication.methods=[api_keys]", limits) as gateway:
        # Both protocols count.
        assert [status(gateway.address, one), call(gateway.address, one), status(gateway.address, one)] == [
            200,
            "OK",
            200,
        ]
        code, text, headers = ask(gateway.address, one)
        assert (code, list(json.loads(text)), headers["Retry-After"]) == (429, ["error"], "1000")
        assert call(gateway.address, one) == "RESOURCE_EXHAUSTED"
        # Strangers take nothing from anybody.
        assert {status(gateway.address, "x") for _ in range(5)} == {401}
        assert status(gateway.address, other) == 200


def test_an_address_and_all_together_have_a_rate_whatever_is_sent_with_a_request(server, tmp_path):
    file = tmp_path / "workspace" / "keys" / "gateway-keys.json"
    _, key = api_keys.create(file, "one")
    limits = "limits={address_requests_per_second: 0.001, burst: 5}"
    with gateway_before(server, tmp_path, "authentication.methods=[api_keys]", limits) as gateway:
        codes = [
            status(gateway.address, f"{number}", headers={"X-Forwarded-For": f"10.0.0.{number}"}) for number in range(8)
        ]
        assert codes == [401] * 5 + [429] * 3
        assert status(gateway.address, key) == 429
    limits = "limits={total_requests_per_second: 0.001, burst: 2}"
    with gateway_before(server, tmp_path / "total", limits) as gateway:
        assert [status(gateway.address) for _ in range(4)] == [200, 200, 429, 429]
