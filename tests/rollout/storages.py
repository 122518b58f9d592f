"""Object storages on loopback: S3 by moto's server, Google's by gcp-storage-emulator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def s3(patch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run an S3 server; yield the address of a bucket in it."""
    import boto3
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    patch.setenv("AWS_ACCESS_KEY_ID", "test")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        boto3.client("s3").create_bucket(Bucket="models")
        yield "s3://models/serving"
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        server.stop()


@contextmanager
def gcs(patch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run an emulator of Google's storage; yield the address of a bucket in it."""
    # Else gcsfs asks a service that the emulator does not have, and waits. It looks at this when it is imported.
    patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    import gcsfs
    from gcp_storage_emulator.server import create_server

    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket="models")
    server.start()
    port = server._api._httpd.server_address[1]
    patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    gcsfs.GCSFileSystem.clear_instance_cache()
    try:
        yield "gs://models/serving"
    finally:
        gcsfs.GCSFileSystem.clear_instance_cache()
        server.stop()


STORAGES = {"s3": s3, "gcs": gcs}
