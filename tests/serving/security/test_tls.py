"""TLS and mTLS over real connections of both protocols; certificates made here."""

from __future__ import annotations

import asyncio
import socket
import ssl
from datetime import timedelta

import aiohttp
import grpc
import pytest
from cryptography import x509
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc

from bike_pipeline.errors import ConfigurationError
from bike_pipeline.serving.security import api_keys
from tests.rollout.gateway.authorities import Authority
from tests.serving.security.small_server import run, serving, settings_of


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def tls(signed, **more):
    return [
        f"tls.{name}={value}"
        for name, value in {"certificate_file": signed.certificate, "key_file": signed.key, **more}.items()
    ]


def client_context(authority, signed=None, **versions):
    context = ssl.create_default_context(cafile=str(authority.certificate))
    if signed:
        context.load_cert_chain(str(signed.certificate), str(signed.key))
    for name, value in versions.items():
        setattr(context, name, value)
    return context


async def rest(address, context, headers=None):
    """Return the status, or the name of what kept the connection from being made."""
    async with aiohttp.ClientSession() as session:
        try:
            async with session.get(f"https://{address}/v1/models/bikes", ssl=context, headers=headers) as answer:
                return answer.status
        # With TLS 1.3 a client hears only after its handshake that its certificate was refused.
        except (aiohttp.ClientError, ssl.SSLError) as error:
            return type(error).__name__


async def rpc(address, authority, signed=None, *, call_credentials=()):
    """Return the status code of a call."""
    credentials = grpc.ssl_channel_credentials(
        authority.certificate.read_bytes(),
        signed.key.read_bytes() if signed else None,
        signed.certificate.read_bytes() if signed else None,
    )
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "bikes"
    # A channel of its own in the process, whatever gRPC keeps of others.
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(address, credentials, options) as channel:
        try:
            await model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(
                request, timeout=20, metadata=call_credentials
            )
        except grpc.aio.AioRpcError as error:
            return error.code().name
    return "OK"


def test_both_protocols_speak_tls_to_who_trusts_the_authority(tmp_path, authority):
    stranger = Authority(tmp_path, "stranger")

    async def asks():
        async with serving(settings_of(tmp_path, *tls(authority.sign("server")))) as (rest_at, rpc_at):
            assert await rest(rest_at, client_context(authority)) == 200
            assert await rpc(rpc_at, authority) == "OK"
            assert await rest(rest_at, client_context(stranger)) == "ClientConnectorCertificateError"
            assert await rpc(rpc_at, stranger) == "UNAVAILABLE"
            async with grpc.aio.insecure_channel(rpc_at) as channel:
                with pytest.raises(grpc.aio.AioRpcError, match="UNAVAILABLE"):
                    await model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(
                        get_model_status_pb2.GetModelStatusRequest(), timeout=20
                    )

    run(asks())


def test_a_certificate_for_another_host_is_not_believed_by_clients(tmp_path, authority):
    async def asks():
        signed = authority.sign("server", hosts=("elsewhere.example.org",))
        async with serving(settings_of(tmp_path, *tls(signed))) as (rest_at, rpc_at):
            assert await rest(rest_at, client_context(authority)) == "ClientConnectorCertificateError"
            assert await rpc(rpc_at, authority) == "UNAVAILABLE"

    run(asks())


@pytest.mark.parametrize("minimum", ["1.2", "1.3"])
def test_older_versions_of_the_protocol_are_refused(tmp_path, authority, minimum):
    async def handshake(address, version):
        context = client_context(authority, minimum_version=ssl.TLSVersion.TLSv1, maximum_version=version)
        context.set_ciphers("ALL:@SECLEVEL=0")
        return await rest(address, context)

    async def asks():
        settings = settings_of(tmp_path, *tls(authority.sign("server"), minimum_version=f'"{minimum}"'))
        async with serving(settings) as (rest_at, _):
            assert await handshake(rest_at, ssl.TLSVersion.TLSv1_1) != 200
            assert (await handshake(rest_at, ssl.TLSVersion.TLSv1_2) == 200) is (minimum == "1.2")
            assert await handshake(rest_at, ssl.TLSVersion.TLSv1_3) == 200

    run(asks())


def test_with_mtls_only_clients_of_the_authority_get_in(tmp_path, authority):
    clients, stranger = Authority(tmp_path, "clients"), Authority(tmp_path, "strangers")
    good = clients.sign("client", client=True)
    bad = {
        "none": None,
        "stranger": stranger.sign("other", client=True),
        "expired": clients.sign("late", client=True, lasts=timedelta(days=-1)),
        "server's": clients.sign("no-client", client=False),
        "same authority as the server": authority.sign("wrong", client=True),
    }

    async def asks():
        settings = settings_of(tmp_path, *tls(authority.sign("server"), client_ca_file=clients.certificate))
        async with serving(settings) as (rest_at, rpc_at):
            for name, signed in bad.items():
                assert await rest(rest_at, client_context(authority, signed)) != 200, name
                assert await rpc(rpc_at, authority, signed) == "UNAVAILABLE", name
            assert await rest(rest_at, client_context(authority, good)) == 200
            assert await rpc(rpc_at, authority, good) == "OK"

    run(asks())


def test_mtls_and_api_keys_are_both_needed_where_both_are_on(tmp_path, authority):
    _, key = api_keys.create(tmp_path / "keys" / "api-keys.json", "dashboard", ["predict"])
    client = authority.sign("client", client=True)

    async def asks():
        settings = settings_of(
            tmp_path,
            *tls(authority.sign("server"), client_ca_file=authority.certificate),
            "authentication.methods=[api_keys]",
        )
        async with serving(settings) as (rest_at, rpc_at):
            context = client_context(authority, client)
            assert await rest(rest_at, context) == 401
            assert await rest(rest_at, context, {"X-API-Key": key}) == 200
            assert await rest(rest_at, client_context(authority), {"X-API-Key": key}) != 200
            assert await rpc(rpc_at, authority, client) == "UNAUTHENTICATED"
            assert await rpc(rpc_at, authority, client, call_credentials=(("x-api-key", key),)) == "OK"

    run(asks())


async def _serial(address, context):
    """Return the serial number of the certificate that a new connection is shown."""
    host, _, port = address.partition(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(shown).serial_number


def _serial_of(path):
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number


async def _until(condition):
    for _ in range(200):
        if await condition():
            return True
        await asyncio.sleep(0.05)
    return False


def test_a_renewed_certificate_is_shown_without_a_restart_and_no_request_fails(tmp_path, authority):
    signed = authority.sign("server")

    async def asks():
        async with serving(settings_of(tmp_path, *tls(signed))) as (rest_at, rpc_at):
            context = client_context(authority)
            h2 = client_context(authority)
            h2.set_alpn_protocols(["h2"])
            done, answered = asyncio.Event(), []

            async def keeps_asking(ask):
                while not done.is_set():
                    answered.append(await ask())

            clients = [
                asyncio.create_task(keeps_asking(lambda: rest(rest_at, context))),
                asyncio.create_task(keeps_asking(lambda: rpc(rpc_at, authority))),
            ]
            for _ in range(2):
                authority.sign("server", into=signed)
                new = _serial_of(signed.certificate)
                for address, how in ((rest_at, context), (rpc_at, h2)):

                    async def shown(address=address, how=how, new=new):
                        return await _serial(address, how) == new

                    assert await _until(shown)
            # An expired one does not replace it.
            before = _serial_of(signed.certificate)
            authority.sign("server", into=signed, lasts=timedelta(days=-1))
            await asyncio.sleep(1.2)
            assert await _serial(rest_at, context) == before
            assert await _serial(rpc_at, h2) == before
            done.set()
            await asyncio.gather(*clients)
            assert set(answered) == {200, "OK"}

    run(asks())


def test_renewed_client_authorities_let_in_the_new_and_keep_out_the_old(tmp_path, authority):
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    by_old, by_new = old.sign("a", client=True), new.sign("b", client=True)
    file = tmp_path / "clients.pem"
    file.write_bytes(old.certificate.read_bytes())

    async def asks():
        settings = settings_of(tmp_path, *tls(authority.sign("server"), client_ca_file=file))
        async with serving(settings) as (rest_at, rpc_at):

            async def let_in(signed):
                return (
                    await rest(rest_at, client_context(authority, signed)) == 200,
                    await rpc(rpc_at, authority, signed) == "OK",
                )

            assert await let_in(by_old) == (True, True)
            assert await let_in(by_new) == (False, False)
            for content, expected in (
                (old.certificate.read_bytes() + new.certificate.read_bytes(), ((True, True), (True, True))),
                (new.certificate.read_bytes(), ((False, False), (True, True))),
            ):
                file.write_bytes(content)

                async def as_expected(expected=expected):
                    return (await let_in(by_old), await let_in(by_new)) == expected

                assert await _until(as_expected)

    run(asks())


def test_a_session_that_is_resumed_does_not_outlive_the_authority_of_its_client(tmp_path, authority):
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    client = old.sign("client", client=True)
    file = tmp_path / "clients.pem"
    both = old.certificate.read_bytes() + new.certificate.read_bytes()

    async def asks():
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            file.write_bytes(old.certificate.read_bytes())
            settings = settings_of(tmp_path, *tls(authority.sign("server"), client_ca_file=file))
            async with serving(settings) as (rest_at, _):
                context = client_context(authority, client, maximum_version=version)

                def resumes(session=None, at=rest_at, how=context):
                    return asyncio.to_thread(_session, at, how, session)

                session = await resumes()
                assert await resumes(session)
                # Renewed, and the client is still welcome: at the latest with its second try.
                file.write_bytes(both)
                await asyncio.sleep(1.2)
                tries = [await resumes(session) for _ in range(2)]
                assert tries[-1]
                session = tries[-1]
                file.write_bytes(new.certificate.read_bytes())
                await asyncio.sleep(1.2)
                assert [await resumes(session) for _ in range(3)] == [None] * 3

    run(asks())


def _session(address, context, session):
    """Return the session of a request that was answered, resumed from one where the server lets it; else None."""
    host, _, port = address.partition(":")
    try:
        with (
            socket.create_connection((host, int(port)), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname="localhost", session=session) as connection,
        ):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
            return connection.session if answer.startswith(b"HTTP/1.1 200") else None
    except OSError:
        return None


def test_a_server_does_not_start_on_a_certificate_that_is_unsound(tmp_path, authority):
    settings = settings_of(tmp_path, *tls(authority.sign("expired", lasts=timedelta(days=-1))))

    async def starts():
        async with serving(settings):
            pass

    with pytest.raises(ConfigurationError, match="expired on"):
        run(starts())
