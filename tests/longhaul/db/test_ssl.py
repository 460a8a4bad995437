"""PostgreSQL that wants SSL: URLs with libpq's parameters, as managed servers hand them out."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Address
from pathlib import Path
from urllib.parse import urlencode

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import text

from longhaul.db.database import Database
from longhaul.db.migrate import upgrade
from longhaul.db.models import utc_now
from longhaul.errors import UnavailableError
from longhaul.settings import SettingsError, load_settings
from testkit.postgres import PostgresServer
from testkit.servers import HOST

pytestmark = pytest.mark.integration

# A client of the role "certified" needs a certificate; nobody gets in without SSL but the test itself.
ACCESS = """
host    postgres all       all trust
hostssl all      certified all cert
hostssl all      postgres  all trust
"""


@dataclass(frozen=True)
class Certificate:
    """Files of a certificate and its key."""

    cert: Path
    key: Path


def certificate(folder: Path, name: str, issuer: Certificate | None = None) -> Certificate:
    """For HOST and for the role `name`; without an issuer it is its own."""
    made = Certificate(folder / f"{name}.crt", folder / f"{name}.key")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    issuer_name, issuer_key = subject, key
    if issuer is not None:
        issuer_name = x509.load_pem_x509_certificate(issuer.cert.read_bytes()).subject
        loaded = serialization.load_pem_private_key(issuer.key.read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        issuer_key = loaded
    builder = (
        x509.CertificateBuilder(issuer_name, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(utc_now() - timedelta(days=1))
        .not_valid_after(utc_now() + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address(HOST))]), critical=False)
    )
    made.cert.write_bytes(builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    made.key.write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
    made.key.chmod(0o600)
    return made


def revocations(revoked: Path | None, issuer: Certificate) -> bytes:
    """The issuer's list of revoked certificates."""
    key = serialization.load_pem_private_key(issuer.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    builder = (
        x509.CertificateRevocationListBuilder(x509.load_pem_x509_certificate(issuer.cert.read_bytes()).subject)
        .last_update(utc_now() - timedelta(days=1))
        .next_update(utc_now() + timedelta(days=1))
    )
    if revoked is not None:
        serial = x509.load_pem_x509_certificate(revoked.read_bytes()).serial_number
        one = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(utc_now()).build()
        builder = builder.add_revoked_certificate(one)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class SslServer(PostgresServer):
    """Takes connections with SSL only, except to its database `postgres`."""

    def __init__(self, folder: Path, authority: Certificate) -> None:
        super().__init__(folder)
        self._authority = authority

    async def argv(self) -> list[str]:
        command = await super().argv()
        files = self.data.parent
        own = self.certificate = certificate(files, "server", self._authority)
        shutil.copy(self._authority.cert, files / "ca.crt")
        (self.data / "pg_hba.conf").write_text(ACCESS)
        if os.geteuid() == 0:
            for file in (own.cert, own.key, files / "ca.crt"):
                shutil.chown(file, "postgres", "postgres")
        settings = {"ssl": "on", "ssl_cert_file": own.cert, "ssl_key_file": own.key, "ssl_ca_file": files / "ca.crt"}
        return [*command, *(word for name, value in settings.items() for word in ("-c", f"{name}={value}"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ssl")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Certificate:
    return certificate(folder, "authority")


@pytest.fixture(scope="module")
async def server(folder: Path, authority: Certificate) -> AsyncIterator[SslServer]:
    made = SslServer(folder / "server", authority)
    await made.start()
    await made._sql("CREATE ROLE certified LOGIN SUPERUSER")
    await made._sql("CREATE DATABASE rows")
    yield made
    await made.stop()
    made.remove()


async def connects(server: SslServer, user: str = "postgres", **parameters: object) -> bool:
    """Whether a URL with these parameters works for migrations and for rows, by SSL."""
    written = f"postgres://{user}@{HOST}:{server.port}/rows?{urlencode(parameters)}"
    url = load_settings(database_url=written).sqlalchemy_url
    database = Database(url)
    try:
        async with database.read() as connection:
            used = await connection.scalar(text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))
    except UnavailableError:
        return False
    finally:
        await database.close()
    await asyncio.to_thread(upgrade, url)
    return bool(used)


@pytest.mark.parametrize("mode", ["prefer", "require"])
async def test_ssl_without_verification(server: SslServer, mode: str) -> None:
    assert await connects(server, sslmode=mode)


async def test_a_server_that_wants_ssl_refuses_connections_without(server: SslServer) -> None:
    assert not await connects(server, sslmode="disable")


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_the_servers_certificate_is_verified(
    server: SslServer, authority: Certificate, folder: Path, mode: str
) -> None:
    stranger = certificate(folder, "stranger")
    assert await connects(server, sslmode=mode, sslrootcert=authority.cert)
    assert not await connects(server, sslmode=mode, sslrootcert=stranger.cert)


@pytest.mark.parametrize("form", ["sslcrl", "sslcrldir"])
async def test_a_revoked_certificate_of_the_server(
    server: SslServer, authority: Certificate, tmp_path: Path, form: str
) -> None:
    """By a file of revoked certificates, or by a folder of such files, as OpenSSL names them."""
    file = tmp_path / "0a1b2c3d.r0"
    lists = file if form == "sslcrl" else tmp_path
    for revoked in (False, True):
        file.write_bytes(revocations(server.certificate.cert if revoked else None, authority))
        parameters = {"sslmode": "verify-full", "sslrootcert": authority.cert, form: lists}
        assert await connects(server, "postgres", **parameters) is not revoked


def test_a_folder_without_revocation_lists(tmp_path: Path) -> None:
    (tmp_path / "crl.pem").touch()
    with pytest.raises(SettingsError, match="openssl rehash"):
        Database(f"postgresql+asyncpg://{HOST}/rows?sslcrldir={tmp_path}")


async def test_certificates_of_the_system_do_not_know_our_authority(server: SslServer) -> None:
    assert not await connects(server, sslrootcert="system")


async def test_the_clients_certificate(server: SslServer, authority: Certificate, folder: Path) -> None:
    certified, other = (certificate(folder, name, authority) for name in ("certified", "other"))
    with_key = {"sslmode": "verify-full", "sslrootcert": authority.cert}
    assert await connects(server, "certified", **with_key, sslcert=certified.cert, sslkey=certified.key)
    assert not await connects(server, "certified", **with_key, sslcert=other.cert, sslkey=other.key)
    assert not await connects(server, "certified", **with_key)


async def test_parameters_beside_those_of_ssl(server: SslServer, caplog: pytest.LogCaptureFixture) -> None:
    """As Neon and others hand them out; what asyncpg does not have is named in the log."""
    assert await connects(server, sslmode="require", channel_binding="require", application_name="longhaul")
    assert "channel_binding" in caplog.text
