from __future__ import annotations

import base64
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from bike_pipeline.errors import ConfigurationError
from bike_pipeline.serving.security.tokens import Tokens
from bike_pipeline.settings.serving import JwtSettings

ISSUER, AUDIENCE = "https://login.example.org", "bikes"


def private_pem(key):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_pem(key):
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def settings(**values):
    return JwtSettings(issuer=ISSUER, audience=AUDIENCE, **values)


def token(key, algorithm="ES256", headers=None, **claims):
    body = {"iss": ISSUER, "aud": AUDIENCE, "sub": "dashboard", "exp": time.time() + 600, "scope": "predict"}
    body |= claims
    return jwt.encode({k: v for k, v in body.items() if v is not None}, key, algorithm=algorithm, headers=headers)


@pytest.fixture(scope="module")
def key():
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def tokens(key, tmp_path):
    (tmp_path / "issuer.pem").write_bytes(public_pem(key))
    return Tokens(settings(key_file=str(tmp_path / "issuer.pem"), algorithms=("ES256",)))


def test_a_token_tells_who_asks_and_what_it_may(tokens, key):
    found = tokens.find(token(key))
    assert found.id == "jwt:dashboard"
    assert found.scopes == {"predict"}
    assert tokens.find(token(key, scope="openid predict admin")).scopes == {"predict", "admin"}
    assert tokens.find(token(key, scope=None, scp=["admin"])).scopes == {"admin"}
    assert tokens.find(token(key, scope=None)).scopes == frozenset()


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": 1},
        {"exp": None},
        {"exp": "soon"},
        {"nbf": 2**40},
        {"iat": 2**40},
        {"iss": "https://elsewhere.example.org"},
        {"iss": None},
        {"aud": "cars"},
        {"aud": None},
        {"sub": None},
        {"scope": 7},
    ],
    ids=str,
)
def test_a_token_that_is_expired_early_or_for_others_is_not_believed(tokens, key, claims):
    assert tokens.find(token(key, **claims)) is None


def test_the_clocks_may_differ_by_the_leeway_and_no_more(tokens, key):
    assert tokens.find(token(key, exp=time.time() - 5)) is not None
    assert tokens.find(token(key, exp=time.time() - 15)) is None


def test_a_token_is_forgotten_when_it_ends(tokens, key, monkeypatch):
    short = token(key, exp=time.time() + 5)
    assert tokens.find(short) is not None
    end = time.time() + 20
    monkeypatch.setattr("bike_pipeline.serving.security.tokens.time.time", lambda: end)
    assert tokens._believed
    # PyJWT reads the clock itself, so what is refused here is the remembered answer.
    monkeypatch.setattr(tokens, "_check", lambda *_: None)
    assert tokens.find(short) is None
    assert not tokens._believed


def test_only_the_issuers_signature_by_an_allowed_algorithm_is_believed(tokens, key):
    good = token(key)
    header, body, signature = good.split(".")
    stranger = ec.generate_private_key(ec.SECP256R1())
    unsigned = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    # The issuer's public key taken for a shared secret: the classic confusion (RFC 8725, 2.1). PyJWT refuses to
    # make such a token, so it is made by hand.
    import hashlib
    import hmac

    confused = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=").decode() + "." + body
    mac = hmac.new(public_pem(key), confused.encode(), hashlib.sha256).digest()
    refused = [
        token(stranger),
        token(ec.generate_private_key(ec.SECP384R1()), algorithm="ES384"),
        f"{unsigned}.{body}.",
        f"{unsigned}.{body}.{signature}",
        f"{confused}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}",
        f"{header}.{body}.",
        f"{header}.{body}.{signature[:-4]}AAAA",
        f"{header}.{body}",
        "",
        ".",
        "..",
        "a" * 100_000,
        "\ud800",
        "é.é.é",
    ]
    assert tokens.find(good) is not None
    assert [tokens.find(each) for each in refused] == [None] * len(refused)


def test_a_shared_secret_signs_too_if_it_is_long_enough(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(b"0123456789abcdef" * 3 + b"\n")
    tokens = Tokens(settings(key_file=str(path), algorithms=("HS256",)))
    assert tokens.find(token(b"0123456789abcdef" * 3, "HS256")) is not None
    assert tokens.find(token(b"fedcba9876543210" * 3, "HS256")) is None
    path.write_bytes(b"short")
    with pytest.raises(ConfigurationError, match="at least 32 bytes"):
        Tokens(settings(key_file=str(path), algorithms=("HS256",)))


def jwks(*keys):
    found = []
    for kid, key in keys:
        algorithm = jwt.algorithms.ECAlgorithm if isinstance(key, ec.EllipticCurvePrivateKey) else None
        algorithm = algorithm or jwt.algorithms.RSAAlgorithm
        found.append({**json.loads(algorithm.to_jwk(key.public_key())), "kid": kid, "use": "sig"})
    return json.dumps({"keys": found})


def test_keys_of_a_set_are_told_apart_by_kid_and_rotate_in_a_running_server(key, tmp_path):
    path = tmp_path / "jwks.json"
    new = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    path.write_text(jwks(("old", key)))
    tokens = Tokens(settings(jwks_file=str(path)))
    by_old, by_new = token(key, headers={"kid": "old"}), token(new, "RS256", headers={"kid": "new"})
    assert tokens.find(by_old) is not None
    assert tokens.find(by_new) is None
    assert tokens.find(token(key)) is None
    assert tokens.find(token(key, headers={"kid": "new"})) is None

    def renew(content):
        aside = tmp_path / "aside"
        aside.write_text(content)
        aside.replace(path)
        # A look at the files is due, without waiting for it.
        tokens._keys._next_look = 0

    renew(jwks(("old", key), ("new", new)))
    assert tokens.find(by_old) is not None
    assert tokens.find(by_new) is not None
    renew("{half")
    assert tokens.find(by_new) is not None
    renew(jwks(("new", new)))
    assert tokens.find(by_old) is None
    assert tokens.find(by_new) is not None


@pytest.mark.parametrize(
    ("content", "said"),
    [("[]", "no JSON Web Key Set"), ("{", "no JSON Web Key Set"), ('{"keys": []}', "no key with a `kid`")],
    ids=["list", "cut", "empty"],
)
def test_a_set_that_is_none_or_empty_is_refused_at_the_start(tmp_path, content, said):
    (tmp_path / "jwks.json").write_text(content)
    with pytest.raises(ConfigurationError, match=said):
        Tokens(settings(jwks_file=str(tmp_path / "jwks.json")))


def test_a_key_file_that_is_missing_private_or_of_another_kind_is_refused_at_the_start(key, tmp_path):
    with pytest.raises(ConfigurationError, match="cannot read"):
        Tokens(settings(key_file=str(tmp_path / "none.pem")))
    (tmp_path / "private.pem").write_bytes(private_pem(key))
    with pytest.raises(ConfigurationError, match="no public key"):
        Tokens(settings(key_file=str(tmp_path / "private.pem")))
    (tmp_path / "public.pem").write_bytes(public_pem(key))
    with pytest.raises(ConfigurationError, match="signs with none of RS256"):
        Tokens(settings(key_file=str(tmp_path / "public.pem"), algorithms=("RS256",)))
