"""Certificates for tests: an authority, and what it signs."""

from __future__ import annotations

import ipaddress
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True)
class Signed:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates; every file goes into one folder."""

    def __init__(self, folder: Path, name: str = "authority"):
        self.folder = folder
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            self._builder(self.name, self._key.public_key(), timedelta(days=365))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate = folder / f"{name}.pem"
        self.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))

    def _builder(self, subject, public_key, lasts, begins=timedelta(days=-400)):
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + lasts)
        )

    def sign(
        self,
        name,
        *,
        hosts=("localhost", "127.0.0.1"),
        lasts=timedelta(days=90),
        begins=timedelta(days=-400),
        client=False,
        into=None,
    ):
        """Write NAME.pem and NAME-key.pem, or over the files of `into`."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        names = [_name(host) for host in hosts]
        certificate = (
            self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key.public_key(), lasts, begins)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        files = into or Signed(self.folder / f"{name}.pem", self.folder / f"{name}-key.pem")
        # As those who renew do it: both aside, then both in place.
        for path, content in (
            (files.key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())),
            (files.certificate, certificate.public_bytes(Encoding.PEM)),
        ):
            aside = path.with_suffix(".new")
            aside.write_bytes(content)
            aside.replace(path)
        return files


def _name(host):
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


class Mounted:
    """A folder of a secret as kubelet makes it: links into `..data`, which is a link that is renamed over."""

    def __init__(self, folder: Path, files: dict[str, Path]):
        self.folder, self._generation = folder, 0
        folder.mkdir()
        self.renew(files)
        for name in files:
            (folder / name).symlink_to(Path("..data") / name)

    def renew(self, files: dict[str, Path]):
        """Put other files into their places, all of them at once."""
        self._generation += 1
        data = self.folder / f"..{self._generation}"
        data.mkdir()
        for name, source in files.items():
            (data / name).write_bytes(source.read_bytes())
        aside = self.folder / "..data_tmp"
        aside.symlink_to(data.name)
        aside.replace(self.folder / "..data")
        # The former ones are removed, as kubelet does.
        former = self.folder / f"..{self._generation - 1}"
        if former.is_dir():
            shutil.rmtree(former)
