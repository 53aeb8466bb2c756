"""From messages on record to rows: each sample its own row, the same in both stores."""

import re
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import orjson
import pytest
from hypothesis import given

from ingest.points import Entry, alert_point, pack, sub_millisecond, unpack
from ingest.sinks.duckdb import DuckDBSink
from ingest.sinks.influx import lines
from schemas.alerts import FLEET, Acknowledgement, Alert
from schemas.measurements import ALERT, EVERY, MEASUREMENTS, STREAM_MEASUREMENTS, TAGS, Kind, Point
from schemas.topics import Stream
from tests.line import DEVICE, MODEL, SAMPLE, START_MS, envelope, message, sample, stored

KEY = r"[a-z_0-9]+"
TAG_VALUE = r"[A-Za-z0-9._+-]+"
FLOAT = r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
FIELD = rf'{KEY}=(?:-?[0-9]+i|{FLOAT}|True|False|"(?:[^"\\\n]|\\["\\])*")'
LINE = re.compile(rf"({KEY})((?:,{KEY}={TAG_VALUE})*) ({FIELD}(?:,{FIELD})*) (-?[0-9]+)")


def entry(stream: Stream, payload: bytes, number: int = 1, event_ms: int = START_MS, clock_ok: bool = True) -> Entry:
    return Entry(number, DEVICE, number, stream.value, event_ms, START_MS + 50, clock_ok, payload)


def own(point: Point, number: int = 1) -> Entry:
    return Entry(number, DEVICE, None, None, START_MS, START_MS, True, pack(point))


def read_line(line: str) -> tuple[str, dict[str, str], dict[str, Any], int]:
    """Strict line protocol: (measurement, tags, fields with their types, time)."""
    found = LINE.fullmatch(line)
    assert found, line
    name, tags, fields, time_ns = found.groups()
    told: dict[str, Any] = {}
    for pair in re.findall(FIELD, fields):
        key, raw = pair.split("=", 1)
        assert key not in told, f"{key} twice in {line}"
        told[key] = _value(raw)
    return name, dict(pair.split("=") for pair in tags[1:].split(",")), told, int(time_ns)


def _value(raw: str) -> Any:
    if raw.startswith('"'):
        return raw[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    if raw in ("True", "False"):
        return raw == "True"
    return int(raw[:-1]) if raw.endswith("i") else float(raw)


BARE: dict[Stream, dict[str, Any]] = {
    Stream.CURRENT: {"i_set_ua": 200, "i_peak_ua": -0.0, "i_rms_ua": 1e-7, "i_dc_ua": -105_001, "z": 0},
    Stream.CONTACT: {"z_ohm": 20_000_000, "contact_frac": None, "motion": None},
    Stream.RUNTIME: {"auto_off_s": -60},
    Stream.HEALTH: {"temp_head_c": -40, "lux": 200_000, "solar_mv": 0},
    Stream.IDENTITY: {"gel_lot": "L 1/(2)", "gel_expiry": None},
    Stream.STATUS: {"oldest_seq": None},
}
"""Integers where floats are meant, nulls, signs and exponents."""


def variants(stream: Stream) -> list[bytes]:
    optional = STREAM_MEASUREMENTS[stream].optional
    bare = {k: v for k, v in SAMPLE[stream].items() if k not in optional}
    odd = {k: v for k, v in BARE[stream].items() if k in SAMPLE[stream] or k in optional}
    return [
        message(stream, 0),
        orjson.dumps(envelope(1, START_MS, {"dt_ms": 0, **bare}, session_id=None)),
        message(stream, 2, envelope_={"gateway_id": None, "gateway_ts_ms": 5}, **odd),
    ]


def expected_rows(stream: Stream, payload: bytes) -> list[dict[str, Any]]:
    """What the stores must hold of a message: its samples' fields as they were said, null where absent."""
    said = orjson.loads(payload)
    rows = []
    for one in said["samples"]:
        row: dict[str, Any] = {name: one.get(name) for name in STREAM_MEASUREMENTS[stream].sample}
        row |= {name: said[name] for name in ("boot_id", "seq", "session_id", "hw")}
        row |= {"device_ms": said["ts_ms"], "received_ms": START_MS + 50, "clock_ok": True}
        row |= {"device_id": DEVICE, "model": said["model"], "fw": said["fw"]}
        row["time_ns"] = (START_MS + one["dt_ms"]) * 1_000_000 + sub_millisecond(said["boot_id"], said["seq"])
        rows.append(row)
    return rows


@pytest.mark.parametrize("stream", list(Stream))
def test_line_protocol_says_every_value_of_every_stream_with_its_type(stream: Stream) -> None:
    kinds = STREAM_MEASUREMENTS[stream].fields
    for payload in variants(stream):
        (line,) = lines(entry(stream, payload))
        name, tags, fields, time_ns = read_line(line)
        (expected,) = expected_rows(stream, payload)
        assert name == stream.value
        assert list(tags) == list(TAGS)
        assert {**tags, **fields, "time_ns": time_ns} == {k: v for k, v in expected.items() if v is not None}
        types = {Kind.FLOAT: float, Kind.INTEGER: int, Kind.BOOLEAN: bool, Kind.STRING: str}
        assert {k: type(v) for k, v in fields.items()} == {k: types[kinds[k]] for k in fields}


def test_both_stores_hold_the_same_values(tmp_path: Path) -> None:
    entries = [
        entry(stream, payload, 10 * at + number)
        for at, stream in enumerate(Stream)
        for number, payload in enumerate(variants(stream))
    ]
    many = [sample(Stream.CURRENT, 100 * k, i_peak_ua=float(k)) for k in range(9)]
    entries.append(entry(Stream.CURRENT, orjson.dumps(envelope(7, START_MS, *many)), 99))
    sink = DuckDBSink(tmp_path)
    sink.open("j")
    sink.write(entries)
    for stream in Stream:
        of_stream = [e for e in entries if e.stream == stream]
        expected = [row for e in of_stream for row in expected_rows(stream, e.payload)]
        columns = list(expected[0])
        rows = stored(sink, f"SELECT {', '.join(columns)} FROM \"{stream}\" ORDER BY time_ns")
        in_duckdb = [dict(zip(columns, row, strict=True)) for row in rows]
        assert in_duckdb == sorted(expected, key=lambda row: row["time_ns"])
        told = [read_line(line) for e in of_stream for line in lines(e)]
        in_influx = [{**dict.fromkeys(columns), **tags, **fields, "time_ns": ns} for _, tags, fields, ns in told]
        assert sorted(in_influx, key=lambda row: row["time_ns"]) == in_duckdb
    sink.close()


@given(st.lists(st.integers(0, 3_600_000), min_size=1, max_size=40, unique=True), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_every_sample_gives_one_row_with_a_time_of_its_own(offsets: list[int], boot_id: int, seq: int) -> None:
    samples = [sample(Stream.CONTACT, dt_ms) for dt_ms in sorted(offsets)]
    rows = unpack(entry(Stream.CONTACT, orjson.dumps(envelope(seq, START_MS, *samples, boot_id=boot_id))))
    assert [time_ns // 1_000_000 - START_MS for time_ns, _ in rows.rows] == sorted(offsets)
    assert len({time_ns for time_ns, _ in rows.rows}) == len(offsets)
    assert {time_ns % 1_000_000 for time_ns, _ in rows.rows} == {sub_millisecond(boot_id, seq)}


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1_000), st.integers(1, 999))
def test_messages_of_a_boot_at_the_same_millisecond_are_kept_apart(boot_id: int, seq: int, further: int) -> None:
    assert sub_millisecond(boot_id, seq) != sub_millisecond(boot_id, seq + further)
    assert 0 <= sub_millisecond(boot_id, seq) < 1_000_000


def test_messages_of_many_boots_at_the_same_millisecond_are_kept_apart() -> None:
    """Boot ids as devices make them: counted, or at random."""
    for boots in (range(200), (pow(7, n, 2**32) for n in range(200))):
        times = [sub_millisecond(boot_id, seq) for boot_id in boots for seq in range(3)]
        assert len(set(times)) == 600


def test_the_same_record_always_gives_the_same_rows() -> None:
    one = entry(Stream.CURRENT, message(Stream.CURRENT, 3))
    assert unpack(one) == unpack(one)
    assert list(lines(one)) == list(lines(one))


def alert(**changes: Any) -> Alert:
    return Alert(
        **{
            "id": "0123456789abcdef", "rule": "overcurrent-peak", "rule_version": 1, "severity": "critical", "device_id": DEVICE,
            "session_id": "s-1", "model": MODEL, "hw": "B", "fw": "2.3.1", "profile_id": MODEL, "profile_version": 1, "state": "open",
            "onset_ms": START_MS, "opened_ms": START_MS, "updated_ms": START_MS, "value": 900.0, "limit": 600.0, "unit": "µA",
            "source": "a test", **changes,
        }
    )  # fmt: skip


ALERTS = {
    "open": alert(),
    "closed": alert(state="closed", closed_ms=START_MS + 5, close_reason="cleared"),
    "withdrawn": alert(state="withdrawn"),
    "without a profile": alert(model=None, hw=None, fw=None, profile_id=None, profile_version=None, session_id=None),
    "acknowledged": alert(acknowledged=Acknowledgement(by='J. "Doc" O\'Hara\\\n', at_ms=START_MS + 9, note="seen")),
    "whole numbers": alert(value=900, limit=600),
}


@pytest.mark.parametrize("which", ALERTS)
def test_an_alert_is_a_point_with_the_types_of_its_measurement(which: str, tmp_path: Path) -> None:
    one = ALERTS[which]
    point = alert_point(one, one.model, one.fw)
    (line,) = lines(own(point))
    name, tags, fields, time_ns = read_line(line)
    expected_tags = {"device_id": DEVICE, "model": one.model or "unknown", "fw": one.fw or "unknown", "rule": one.rule}
    assert (name, tags) == ("alert", expected_tags)
    types = {Kind.FLOAT: float, Kind.INTEGER: int, Kind.BOOLEAN: bool, Kind.STRING: str}
    assert {k: type(v) for k, v in fields.items()} == {k: types[ALERT.fields[k]] for k in fields}
    assert set(ALERT.fields) - set(fields) <= ALERT.optional
    assert (fields["alert_id"], fields["value"], fields["limit"]) == (one.id, 900.0, 600.0)
    sink = DuckDBSink(tmp_path)
    sink.open("j")
    sink.write([own(point)])
    columns = list(ALERT.fields)
    quoted = ", ".join(f'"{name}"' for name in columns)
    (row,) = stored(sink, f"SELECT time_ns, {quoted} FROM alert")
    sink.close()
    assert row[0] == time_ns
    in_duckdb = {k: v for k, v in zip(columns, row[1:], strict=True) if v is not None}
    assert in_duckdb | {"acknowledged_by": ""} == fields | {"acknowledged_by": ""}


SEEN = Acknowledgement(by="Ada", at_ms=START_MS + 90_500, note="")
COUNTED = ("critical", "warning", "info", "open", "unacknowledged")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, (1, 0, 0, 1, 1)), ({"severity": "warning"}, (0, 1, 0, 1, 1)), ({"severity": "info"}, (0, 0, 1, 1, 1)),
     ({"state": "closed"}, (1, 0, 0, 0, 1)), ({"acknowledged": SEEN}, (1, 0, 0, 1, 0)), ({"state": "closed", "acknowledged": SEEN}, (1, 0, 0, 0, 0)),
     ({"state": "withdrawn"}, (0, 0, 0, 0, 0)), ({"state": "withdrawn", "acknowledged": SEEN}, (0, 0, 0, 0, 0))],
)  # fmt: skip
def test_an_alert_counts_as_one_by_its_severity_and_state_until_it_is_withdrawn(changes: dict[str, Any], expected: tuple[int, ...]) -> None:
    fields = alert_point(alert(**changes), MODEL, "2.3.1").fields
    assert tuple(fields[name] for name in COUNTED) == expected


@pytest.mark.parametrize(("opened_ms", "after_s"), [(START_MS, 90.5), (START_MS + 90_500, 0.0), (START_MS + 99_000, 0.0)])
def test_an_acknowledgement_is_timed_from_the_opening_and_never_before_it(opened_ms: int, after_s: float) -> None:
    assert alert_point(alert(opened_ms=opened_ms, acknowledged=SEEN), None, None).fields["acknowledged_after_s"] == after_s
    assert "acknowledged_after_s" not in alert_point(alert(opened_ms=opened_ms), None, None).fields


def test_an_alert_of_the_fleet_is_of_every_firmware_that_it_does_not_name() -> None:
    of_fleet = alert(device_id=FLEET, rule="fleet-cluster", session_id=None)
    assert alert_point(of_fleet, MODEL, None).tags == (FLEET, MODEL, EVERY, "fleet-cluster")
    assert alert_point(alert(), None, None).tags == (DEVICE, "unknown", "unknown", "overcurrent-peak")


def test_the_later_states_of_an_alert_overwrite_the_earlier() -> None:
    states = [ALERTS["open"], ALERTS["closed"], ALERTS["acknowledged"]]
    points = [alert_point(state, MODEL, "2.3.1") for state in states]
    assert len({(point.tags, point.time_ns) for point in points}) == 1
    assert alert_point(alert(id="f123456789abcdef"), None, None).time_ns != points[0].time_ns


def test_every_measurement_has_a_name_and_fields_that_need_no_escaping() -> None:
    for name, measurement in MEASUREMENTS.items():
        assert re.fullmatch(KEY, name)
        assert [field for field in measurement.fields if not re.fullmatch(KEY, field)] == []
