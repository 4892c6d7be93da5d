"""A webhook goes to the address that was checked, and takes there the certificate of the name alone."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from core.bus.webhook_http import WebhookSender
from tests.support.receiver import receiving


def certificate(folder: Path, name: str) -> Path:
    """Write a key and a certificate that it signed itself for a name; return the file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / f"{name}.pem"
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, *private) + made.public_bytes(serialization.Encoding.PEM)
    )
    return file


async def test_the_checked_address_is_called_under_the_names_certificate(tmp_path: Path) -> None:
    file = certificate(tmp_path, "hooks.example")
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(file)
    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    sender = WebhookSender(
        private=True, total_s=10, resolve=resolve, trust=ssl.create_default_context(cafile=str(file))
    )
    async with receiving(served) as receiver:
        taken = await sender.send(f"https://hooks.example:{receiver.port}/fleet?a=1", {"webhook-id": "evt_1"}, b"{}")
        assert (taken.status, taken.error) == (204, None)
        (request,) = receiver.received
        assert (request.headers[":line"], request.headers["host"]) == (
            "POST /fleet?a=1 HTTP/1.1",
            f"hooks.example:{receiver.port}",
        )
        other = await sender.send(f"https://other.example:{receiver.port}/", {}, b"{}")
        assert (other.status, other.error) == (None, "ConnectError")
        assert len(receiver.received) == 1
    assert asked == ["hooks.example", "other.example"]


async def test_what_never_answers_or_is_not_there_is_a_failure_and_no_error() -> None:
    async with receiving() as receiver:
        receiver.silent = True
        sender = WebhookSender(private=True, total_s=0.3)
        assert (await sender.send(receiver.url, {}, b"{}")).error == "no answer in time"
    gone = await WebhookSender(private=True, total_s=5).send(receiver.url, {}, b"{}")
    assert (gone.status, gone.error) == (None, "ConnectError")


@pytest.mark.parametrize("told", ["120", "soon", "", "9" * 30])
async def test_a_wait_that_the_receiver_names_is_read_where_it_is_a_number(told: str) -> None:
    async with receiving() as receiver:
        receiver.answer, receiver.headers = lambda _: 503, f"Retry-After: {told}\r\n"
        answer = await WebhookSender(private=True, total_s=5).send(receiver.url, {}, b"{}")
    assert (answer.status, answer.retry_after_s) == (503, 120 if told == "120" else None)
