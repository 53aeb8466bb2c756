"""What must hold for any bytes, target by target. Each takes bytes, and raises if something does not hold.

The same functions are called with bytes that hypothesis makes (`make test`), with those that a fuzzer finds by
coverage (`make fuzz`), and with those that were found before (`cases/`).
"""

import math
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from dashboards.catalogue import DASHBOARDS
from dashboards.query import FILTERS, sql
from ingest import boards
from ingest.admit import Duplicate, Kept, Refused, admit, partial_readings, readings
from ingest.decode import decode
from ingest.device import Device
from ingest.errors import Mistake
from ingest.filters import WORDS, AlertFilter, read_filter
from ingest.glean import FLAGS, MOST_READINGS, NUMBERS, glean
from ingest.glean import WORDS as GLEANED_WORDS
from ingest.points import Entry, unpack
from ingest.registry import read_registry
from ingest.safety.judge import Judged, judge
from ingest.safety.track import Track
from ingest.settings import Settings, load_settings
from ingest.sinks.influx import lines
from schemas import topics
from schemas.profile import ProfileError, load_profiles, parse_profile
from schemas.rejections import Reason
from schemas.topics import Stream, TopicInvalid

NOW_MS = 1_795_298_400_000
DEVICE = "tone-1"
PROFILES = load_profiles()
STREAMS = list(Stream)
SETTINGS = sorted(Settings.model_fields)
SCRATCH = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))


def presentable(text: str) -> None:
    """Fit for a line of a log, a terminal and a page."""
    assert text and text.isprintable() and len(text) <= 256


def a_message(data: bytes) -> None:
    """Any payload on any stream is kept, or refused with a reason; twice it is a duplicate; it can be judged and stored."""
    stream, payload = STREAMS[data[0] % len(STREAMS)] if data else Stream.CURRENT, data[1:]
    topic = topics.uplink(DEVICE, stream).encode()
    devices: dict[str, Device] = {}
    recall = {}

    def take() -> Kept | Duplicate | Refused:
        outcome = admit(
            topic, payload, False, NOW_MS, lambda device_id: devices.setdefault(device_id, Device(device_id)),
            lambda *key: recall.get(key), 90,
        )  # fmt: skip
        if isinstance(outcome, Kept):
            recall[DEVICE, outcome.decoded.message.boot_id, outcome.lane, outcome.decoded.message.seq] = payload
        return outcome

    outcome = take()
    if isinstance(outcome, Kept):
        assert isinstance(take(), Duplicate)
        assert decode(topic.decode(), payload) == outcome.decoded
        message = outcome.decoded.message
        found = readings(outcome.decoded, outcome.event_ms, NOW_MS, PROFILES) if stream is not Stream.STATUS else []
        entry = Entry(1, DEVICE, 1, stream.value, outcome.event_ms, NOW_MS, outcome.clock_ok, payload)
        assert len(unpack(entry).rows) == len(message.samples)
        assert all(line and "\n" not in line and line.isprintable() for line in lines(entry))
        devices[DEVICE].to_json()
    else:
        assert isinstance(outcome, Refused)
        assert outcome.reason in Reason
        presentable(outcome.detail)
        assert (DEVICE, 16) == (outcome.device_id, len(outcome.fingerprint))
        found = partial_readings(outcome.gleaned, Device(DEVICE), NOW_MS, PROFILES)
    _judged(found)


def _judged(found: list) -> None:
    """The judge takes them, in order, and what it says can be told."""
    track, into = Track(DEVICE, "s-1"), Judged()
    for reading in sorted(found, key=lambda reading: reading.order):
        judge(track, reading, into)
    for alert in into.alerts.values():
        assert math.isfinite(alert.value) and math.isfinite(alert.limit)
        assert alert.model_dump_json().isprintable()
    Track.from_json(track.to_json())


def a_rest(data: bytes) -> None:
    """Whatever bytes: what is read of them is known, bounded and no more than there is."""
    found = glean(data)
    assert len(found.readings) <= MOST_READINGS
    for each in (found.envelope, *found.readings):
        assert each.keys() <= NUMBERS | GLEANED_WORDS | FLAGS
        for key, value in each.items():
            if key in NUMBERS:
                assert isinstance(value, float) and math.isfinite(value)
            elif key in FLAGS:
                assert isinstance(value, bool)
            else:
                presentable(value)
    _judged(partial_readings(found, None, NOW_MS, PROFILES))


def a_topic(data: bytes) -> None:
    """Any text is a topic of the contract and round, or none; and so are any bytes when they are admitted."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        device_id, stream = topics.parse_uplink(text)
    except TopicInvalid as error:
        presentable(str(error))
    else:
        assert topics.uplink(device_id, stream) == text
        assert topics.device_level(text) == device_id
    level = topics.device_level(text)
    assert level is None or topics.is_identifier(level)
    outcome = admit(data, b"{}", False, NOW_MS, Device, lambda *key: None, 90, frozenset())
    assert isinstance(outcome, Refused)
    presentable(outcome.detail)


def a_profile(data: bytes) -> None:
    """Any file is a profile, or one sentence."""
    try:
        parse_profile(data, "a.toml")
    except ProfileError as error:
        assert str(error).startswith("a.toml: ")


def a_setting(data: bytes) -> None:
    """Any text in any setting is taken, or is one sentence."""
    name = SETTINGS[data[0] % len(SETTINGS)] if data else SETTINGS[0]
    try:
        load_settings(**{name: data[1:].decode("utf-8", "surrogateescape")})
    except Mistake as mistake:
        assert name in str(mistake).lower() or "settings" in str(mistake)


def an_env_file(data: bytes) -> None:
    """Any `.env` is read, or is one sentence."""
    path = SCRATCH / ".env"
    path.write_bytes(data)
    try:
        load_settings(_env_file=path)
    except Mistake as mistake:
        assert str(mistake)


def a_filter(data: bytes) -> None:
    """Any words choose alerts, or are one sentence."""
    words = _words(data, WORDS)
    try:
        found = read_filter(dict(words), NOW_MS)
    except Mistake as mistake:
        assert str(mistake)
    else:
        assert asdict(found).keys() == asdict(AlertFilter()).keys()
        assert 1 <= found.most <= 10_000


def a_board(data: bytes) -> None:
    """Any words make a view, or are one sentence; what is chosen never stands in the text of a question."""
    dashboard = DASHBOARDS[data[0] % len(DASHBOARDS)] if data else DASHBOARDS[0]
    try:
        view = boards.read_view(dashboard, _words(data[1:], (*FILTERS, "from_ms", "to_ms", "points")), NOW_MS)
    except Mistake as mistake:
        assert str(mistake)
        return
    plain = view._replace(chosen={tag: ["x"] * len(values) for tag, values in view.chosen.items()})
    for section in dashboard.sections:
        for panel in section.panels:
            for query in panel.queries:
                assert sql(query, view).text == sql(query, plain).text, view.chosen


def a_registry(data: bytes) -> None:
    """Any file is a list of known devices, or one sentence."""
    path = SCRATCH / "registry"
    path.write_bytes(data)
    try:
        found = read_registry(path)
    except Mistake as mistake:
        assert str(mistake).isprintable()
    else:
        assert all(map(topics.is_identifier, found))


def _words(data: bytes, known: tuple[str, ...]) -> list[tuple[str, str]]:
    """Pairs from bytes: one byte for the word, the text up to the next NUL."""
    found = []
    for part in data.split(b"\0")[:20]:
        text = part[1:].decode("utf-8", "surrogateescape")
        at = part[0] % (len(known) + 1) if part else 0
        found.append((known[at] if at < len(known) else text, text))
    return found


TARGETS: dict[str, Callable[[bytes], None]] = {
    "message": a_message, "rest": a_rest, "topic": a_topic, "profile": a_profile, "setting": a_setting, "filter": a_filter, "board": a_board,
    "registry": a_registry, "env": an_env_file,
}  # fmt: skip
