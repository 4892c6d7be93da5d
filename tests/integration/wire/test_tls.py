"""A server under TLS with an authority of its own: reached by its address alone, and never without the authority."""

import datetime as dt
import ipaddress
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from redis.exceptions import ConnectionError as RedisConnectionError

from fleet.stack.processes import free_port
from fleet.stack.valkey import EmbeddedValkey
from wire.client import StreamServers


def _certificate(home: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fleet test")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (home / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (home / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return home / "cert.pem"


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Host, port and password of a server that answers under TLS alone, and its authority; the embedded one cannot."""
    authority, port = _certificate(tmp_path), free_port()
    server = EmbeddedValkey(
        tmp_path / "server",
        Path(shutil.which("redis-server") or ""),
        settings={
            "tls-port": str(port),
            "tls-cert-file": str(authority),
            "tls-key-file": str(tmp_path / "key.pem"),
            "tls-ca-cert-file": str(authority),
            "tls-auth-clients": "no",
        },
    )
    server.start()
    try:
        yield server.admin_url.rpartition("@")[0].partition("//")[2] + f"@127.0.0.1:{port}/0", authority
    finally:
        server.stop()


@pytest.mark.needs("redis-server")
async def test_an_authority_of_ones_own_is_named_in_the_address(tls_server: tuple[str, Path]) -> None:
    address, authority = tls_server
    servers = StreamServers(f"rediss://{address}?ssl_ca_certs={authority}", "tls")
    await servers.of("promptpay").set("{promptpay}:epoch", "1")
    assert await servers.of("sbp").get("{promptpay}:epoch") == b"1"
    await servers.aclose()


@pytest.mark.needs("redis-server")
async def test_a_managed_servers_default_user_needs_a_password_alone(tls_server: tuple[str, Path]) -> None:
    address, authority = tls_server
    admin = StreamServers(f"rediss://{address}?ssl_ca_certs={authority}", "tls")
    await admin.of("sbp").acl_setuser("default", enabled=True, passwords=["+managed"], keys=["*"], categories=["+@all"])
    await admin.aclose()
    host = address.rpartition("@")[2]
    servers = StreamServers(f"rediss://:managed@{host}?ssl_ca_certs={authority}", "tls")
    assert await servers.of("sbp").ping()
    await servers.aclose()


@pytest.mark.needs("redis-server")
@pytest.mark.parametrize("scheme", ["rediss", "redis"])
async def test_a_server_that_nobody_vouches_for_gets_no_password(tls_server: tuple[str, Path], scheme: str) -> None:
    servers = StreamServers(f"{scheme}://{tls_server[0]}", "tls")
    with pytest.raises(RedisConnectionError):
        await servers.of("sbp").ping()
    await servers.aclose()
