"""Which alerts or refused messages a person asks for, read from the words of a command or an address."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from ingest.errors import Mistake
from ingest.journal.alerts import ATTENTION, OVER
from ingest.journal.quarantine import RefusedFilter, State
from schemas.alerts import AlertState, Severity
from schemas.rejections import Reason
from schemas.security import SecurityKind

MOST_DEFAULT, MOST_LIMIT = 200, 10_000
DAY_MS = 86_400_000
_AGE = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)([smhdw])", re.ASCII)
_AGE_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": DAY_MS, "w": 7 * DAY_MS}
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_NO = frozenset({"", "0", "false", "no"})
_YES = frozenset({"1", "true", "yes"})


class Standing(StrEnum):
    """over: closed or withdrawn. attention: open, or at least a warning that nobody has acknowledged."""

    OPEN = AlertState.OPEN
    CLOSED = AlertState.CLOSED
    WITHDRAWN = AlertState.WITHDRAWN
    OVER = OVER
    ATTENTION = ATTENTION
    ALL = "all"


@dataclass(frozen=True, slots=True)
class AlertFilter:
    """What `Journal.alerts` takes. None asks for all. Times are event time, ms since 1970 UTC."""

    state: str | None = None
    device_id: str | None = None
    severity: str | None = None
    rule: str | None = None
    model: str | None = None
    fw: str | None = None
    assigned_to: str | None = None
    unacknowledged: bool = False
    since_ms: int | None = None
    until_ms: int | None = None
    most: int = MOST_DEFAULT


WORDS = (
    "state", "device", "severity", "rule", "model", "fw", "assigned_to", "unacknowledged", "since", "until", "limit",
)  # fmt: skip


def read_filter(words: Mapping[str, str], now_ms: int) -> AlertFilter:
    """The filter that the words ask for; ages count back from `now_ms`. Unusable words are a Mistake."""
    given = _given(words, WORDS, "alerts")
    state = _one_of(Standing, "state", given.get("state"))
    since_ms, until_ms = _times(given, now_ms)
    return AlertFilter(
        state=None if state == Standing.ALL else state,
        device_id=given.get("device"),
        severity=_one_of(Severity, "severity", given.get("severity")),
        rule=given.get("rule"),
        model=given.get("model"),
        fw=given.get("fw"),
        assigned_to=given.get("assigned_to"),
        unacknowledged=_yes("unacknowledged", given.get("unacknowledged", "")),
        since_ms=since_ms,
        until_ms=until_ms,
        most=_limit(given.get("limit")),
    )


REFUSED_WORDS = ("state", "reason", "device", "since", "until", "limit")
MOST_ID = 2**63 - 1


def read_refused_filter(words: Mapping[str, str], now_ms: int) -> tuple[RefusedFilter, int]:
    """Which refused messages the words ask for, by time of receipt, and how many at most. Unusable words are a Mistake."""
    given = _given(words, REFUSED_WORDS, "refused messages")
    since_ms, until_ms = _times(given, now_ms)
    wanted = RefusedFilter(
        state=_one_of(State, "state", given.get("state")),
        reason=_one_of(Reason, "reason", given.get("reason")),
        device_id=given.get("device"),
        since_ms=since_ms,
        until_ms=until_ms,
    )
    return wanted, _limit(given.get("limit"))


def read_security_filter(words: Mapping[str, str]) -> tuple[str | None, int]:
    """Which kind of security events the words ask for (None: all), and how many at most. Unusable words are a Mistake."""
    given = _given(words, ("kind", "limit"), "security events")
    return _one_of(SecurityKind, "kind", given.get("kind")), _limit(given.get("limit"))


def _given(words: Mapping[str, str], known: tuple[str, ...], what: str) -> dict[str, str]:
    for word in words:
        if word not in known:
            raise Mistake(f"{word!r} is not something {what} are chosen by; known are {', '.join(known)}")
    try:
        "".join(words.values()).encode()
    except UnicodeEncodeError as error:
        raise Mistake(f"what {what} are chosen by is not readable text") from error
    return {word: text.strip() for word, text in words.items() if text.strip()}


def _times(given: Mapping[str, str], now_ms: int) -> tuple[int | None, int | None]:
    since_ms, until_ms = (_time(word, given.get(word), now_ms) for word in ("since", "until"))
    if since_ms is not None and until_ms is not None and since_ms > until_ms:
        raise Mistake(f"since {given['since']} is after until {given['until']}; exchange them")
    return since_ms, until_ms


def _one_of(kind: type[StrEnum], word: str, text: str | None) -> str | None:
    if text is None or text in set(kind):
        return text
    raise Mistake(f"{word} {text!r} is unknown; it is one of {', '.join(kind)}")


def _yes(word: str, text: str) -> bool:
    if text.lower() in _YES | _NO:
        return text.lower() in _YES
    raise Mistake(f"{word} is true or false, not {text!r}")


def _limit(text: str | None) -> int:
    if text is None:
        return MOST_DEFAULT
    if text.isdecimal() and text.isascii() and 1 <= int(text[:9]) <= MOST_LIMIT:
        return int(text[:9])
    raise Mistake(f"limit {text!r} is unusable; it is a number from 1 to {MOST_LIMIT}")


def _time(word: str, text: str | None, now_ms: int) -> int | None:
    """An age (90s, 2h, 7d) or an ISO time, of UTC where it names no zone. A date alone is all of its day."""
    if text is None:
        return None
    age = _AGE.fullmatch(text)
    if age:
        return now_ms - round(float(age[1]) * _AGE_MS[age[2]])
    try:
        moment = datetime.fromisoformat(text)
        at_ms = round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        raise Mistake(f"{word} {text!r} is no time; write 2026-11-20, 2026-11-20T08:00, or an age such as 90s, 30m, 2h, 7d") from error
    return at_ms + DAY_MS - 1 if word == "until" and _DATE.fullmatch(text) else at_ms
