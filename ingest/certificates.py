"""An authority of our own for devices and brokers: keys made on the spot, certificates, and who is revoked.

Its key is in a directory apart, for nothing that runs needs it: keep that off the machine between uses. Keys are
ECDSA P-256, which small devices can do; certificates last at most 398 days.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ingest.errors import Mistake
from ingest.files import private_directory, write_private

MOST_DAYS = 398
AUTHORITY_DAYS = 3_650
KEY_FILE, CERTIFICATE_FILE = "ca.key", "ca.crt"
LATE_CLOCK = timedelta(hours=1)
"""A certificate holds from so long before it is made: a device's clock may be slow."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A key and its certificate, both PEM; `serial` as in the certificate, `expires_ms` since 1970 UTC."""

    key: str
    certificate: str
    serial: int
    expires_ms: int


@dataclass(frozen=True, slots=True)
class Held:
    """A certificate that somebody has, whoever made it. Times are ms since 1970 UTC."""

    certificate: x509.Certificate
    name: str
    begins_ms: int
    ends_ms: int
    fingerprint: str

    def has_signed(self, other: "Held") -> bool:
        try:
            other.certificate.verify_directly_issued_by(self.certificate)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            return False
        return True


def in_pem(pem: bytes) -> list[Held]:
    """At least one. What holds none, or one that cannot be read, is a ValueError."""
    try:
        return [_held(each) for each in x509.load_pem_x509_certificates(pem)]
    except x509.InvalidVersion as error:
        raise ValueError(str(error)) from error


def _held(certificate: x509.Certificate) -> Held:
    common = [str(each.value) for each in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    name = common[0] if common else certificate.subject.rfc4514_string()
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return Held(certificate, name, _ms(begins), _ms(ends), certificate.fingerprint(hashes.SHA256()).hex()[:32])


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


class Authority:
    """A directory with the authority's key and certificate."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        key_file = directory / KEY_FILE
        if not key_file.exists():
            if (directory / CERTIFICATE_FILE).exists():
                raise Mistake(f"{key_file}: the authority's key is not here; bring it back for as long as this command needs it")
            self._begin()
        try:
            self._key = load_pem_private_key(key_file.read_bytes(), None)
            self._certificate = x509.load_pem_x509_certificate((directory / CERTIFICATE_FILE).read_bytes())
        except (OSError, ValueError, TypeError) as error:
            raise Mistake(f"{directory}: cannot use the authority in it ({error}); restore it from a backup") from error

    @property
    def certificate(self) -> str:
        """What devices and brokers must trust."""
        return self._certificate.public_bytes(Encoding.PEM).decode()

    def device(self, device_id: str, days: int) -> Issued:
        """For a device, which is known by the common name."""
        builder = self._builder(device_id, days).add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        return self._issue(builder)

    def server(self, names: Iterable[str], days: int) -> Issued:
        """For a broker under these names and addresses, and at loopback."""
        names = list(dict.fromkeys([*names, "localhost", "127.0.0.1"]))
        builder = self._builder(names[0], days).add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        return self._issue(builder.add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False))

    def revocations(self, serials: Iterable[int]) -> str:
        """The list of revoked certificates, PEM. It holds as long as the authority, for a broker that finds it too old
        lets nobody in, and it is read from a file that is written at every revocation."""
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._certificate.subject)
        builder = builder.last_update(now - LATE_CLOCK).next_update(self._certificate.not_valid_after_utc)
        for serial in serials:
            builder = builder.add_revoked_certificate(x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build())
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()

    def _begin(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "microcurrent devices")])
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - LATE_CLOCK).not_valid_after(now + timedelta(days=AUTHORITY_DAYS))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        private_directory(self._directory)
        write_private(self._directory / CERTIFICATE_FILE, builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode())
        write_private(self._directory / KEY_FILE, _pem(key))

    def _builder(self, common_name: str, days: int) -> x509.CertificateBuilder:
        if not 1 <= days <= MOST_DAYS:
            raise Mistake(f"a certificate for {days} days: use 1 to {MOST_DAYS}")
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder().issuer_name(self._certificate.subject).serial_number(x509.random_serial_number())
        builder = builder.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        builder = builder.not_valid_before(now - LATE_CLOCK).not_valid_after(now + timedelta(days=days))
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._certificate.public_key())
        return builder.add_extension(identifier, critical=False).add_extension(_usage(signs_certificates=False), critical=True)

    def _issue(self, builder: x509.CertificateBuilder) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = builder.public_key(key.public_key()).sign(self._key, hashes.SHA256())
        expires_ms = int(certificate.not_valid_after_utc.timestamp() * 1000)
        return Issued(_pem(key), certificate.public_bytes(Encoding.PEM).decode(), certificate.serial_number, expires_ms)


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=signs_certificates, crl_sign=signs_certificates, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name)
    except ValueError as error:
        raise Mistake(f"{name!r} is neither a host name in ASCII nor an address") from error


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
