"""Which certificates end soon, and which of that is news. Pure."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from ingest.safety.line import clock
from schemas.alerts import Severity
from schemas.limits import CRITICAL_DAYS, WARN_DAYS
from schemas.security import CertificateKind

DAY_MS = 86_400_000

RENEW: Mapping[CertificateKind, str] = {
    CertificateKind.BROKER: "make another ('microcurrent credentials server') and have the broker read it",
    CertificateKind.AUTHORITY: "begin another authority in time: all that it has signed ends with it",
    CertificateKind.WORKER: "have another made, put it and its key in their files, and restart the worker",
    CertificateKind.WATCHED: "have another made and put it in its place",
    CertificateKind.DEVICE: "'microcurrent credentials create' with --certificate makes another; 'revoke' ends what nobody uses any more",
}
"""What a person does about each."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """`name`: its common name, or all of its subject. `place`: the file it is in, or the address that shows it. `key` is its
    own alone. Times are ms since 1970 UTC; `begins_ms` is 0 where it is not known."""

    kind: CertificateKind
    name: str
    place: str
    begins_ms: int
    ends_ms: int
    key: str

    def severity(self, now_ms: int, warn_days: int = WARN_DAYS) -> Severity | None:
        """How grave it is at this time that it ends when it does; None while it is well. One that has not begun opens nothing either."""
        left_ms = self.ends_ms - now_ms
        if now_ms < self.begins_ms or left_ms <= min(CRITICAL_DAYS, warn_days) * DAY_MS:
            return Severity.CRITICAL
        return Severity.WARNING if left_ms <= warn_days * DAY_MS else None

    def words(self, now_ms: int) -> str:
        """When it ends, as people say it."""
        at = clock(self.ends_ms, now_ms)
        if now_ms < self.begins_ms:
            return f"is not valid before {clock(self.begins_ms, now_ms)}: it is too early, or this machine's clock is wrong"
        if now_ms >= self.ends_ms:
            return f"ended at {at}, by this machine's clock"
        days = (self.ends_ms - now_ms) // DAY_MS
        return f"ends in {days} day{'' if days == 1 else 's'}, at {at}" if days else f"ends within a day, at {at}"

    def told(self, now_ms: int) -> str:
        """Whose it is, when it ends and what to do."""
        return f"{OF[self.kind]} certificate {self.words(now_ms)}; {RENEW[self.kind]}"


OF: Mapping[CertificateKind, str] = {
    CertificateKind.BROKER: "the broker's",
    CertificateKind.AUTHORITY: "the authority's",
    CertificateKind.WORKER: "the worker's own",
    CertificateKind.WATCHED: "this",
    CertificateKind.DEVICE: "the device's",
}


@dataclass(frozen=True, slots=True)
class Reading:
    """What was found. `unread`: places that could not be looked at, and why; what was seen there before is in `found`."""

    found: tuple[Certificate, ...] = ()
    unread: Mapping[str, str] = field(default_factory=dict)


class Expiry:
    """What was told of which certificate, so that each is told once as a warning and once as critical. `told` carries it over a
    restart: by key the severity, and the place where it was seen."""

    def __init__(self, told: Mapping[str, list[str]], warn_days: int = WARN_DAYS) -> None:
        self.told = {key: list(each) for key, each in told.items()}
        self.warn_days = warn_days

    @property
    def worst(self) -> int:
        """The rank of the gravest that stands."""
        return max((Severity(severity).rank for severity, _ in self.told.values()), default=0)

    def look(self, now_ms: int, found: Iterable[Certificate], unread: Collection[str] = ()) -> list[tuple[Certificate, Severity]]:
        """What is news. What is in a place that could not be read is as it was told."""
        told, news = {key: each for key, each in self.told.items() if each[1] in unread}, []
        for certificate in found:
            severity = certificate.severity(now_ms, self.warn_days)
            if severity is None:
                told.pop(certificate.key, None)
                continue
            before = self.told.get(certificate.key)
            if before is None or Severity(before[0]).rank < severity.rank:
                news.append((certificate, severity))
            told[certificate.key] = [severity.value, certificate.place]
        self.told = told
        return news
