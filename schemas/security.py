"""What can be told of attempts to get in, or to be somebody else. A closed list."""

from enum import StrEnum


class SecurityKind(StrEnum):
    AUTH_FAILURE = "auth_failure"
    THROTTLED = "throttled"
    IDENTITY_MISMATCH = "identity_mismatch"
    TAKEOVER = "takeover"
    FORBIDDEN = "forbidden"
    CREDENTIALS = "credentials"
    CLOCK_STEP = "clock_step"
    CERTIFICATE = "certificate"


SECURITY_EXPLAINED: dict[SecurityKind, str] = {
    SecurityKind.AUTH_FAILURE: "somebody could not prove who they are, at the broker or at the page",
    SecurityKind.THROTTLED: "so many tries from one source that further ones are not looked at",
    SecurityKind.IDENTITY_MISMATCH: "a message names another device than the one that may send it",
    SecurityKind.TAKEOVER: "a second connection took the place of a device's, or of the worker's",
    SecurityKind.FORBIDDEN: "somebody known tried what they may not do",
    SecurityKind.CREDENTIALS: "a credential was made or taken away",
    SecurityKind.CLOCK_STEP: "the clock of this machine jumped; times of alerts around it are doubtful",
    SecurityKind.CERTIFICATE: "a certificate ends soon, has ended, or is not valid yet",
}


class CertificateKind(StrEnum):
    """Whose certificates are watched."""

    BROKER = "broker"
    AUTHORITY = "authority"
    WORKER = "worker"
    WATCHED = "watched"
    DEVICE = "device"
