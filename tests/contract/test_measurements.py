"""Names in the store: what a point may be called, and that no two writers disagree about a kind."""

from collections import defaultdict

import pytest

from ingest.safety.rules import RULES
from schemas.alerts import RULE_IDS
from schemas.measurements import (
    MEASUREMENTS,
    MESSAGE_FIELDS,
    RULE_FIELDS,
    SESSION,
    STREAM_MEASUREMENTS,
    TAGS,
    Kind,
    Measurement,
    kinds,
)
from schemas.messages import SAMPLES
from schemas.topics import Stream, is_identifier

LASTING = {"alert", "session", "week", "trend"}

RESERVED = {"time", "_field", "_measurement"}
"""InfluxDB drops or refuses points with these names."""


@pytest.mark.parametrize("measurement", MEASUREMENTS.values(), ids=lambda m: m.name)
def test_a_name_is_either_a_tag_or_a_field_and_never_reserved(measurement: Measurement) -> None:
    names = [*TAGS, *measurement.fields]
    assert sorted(set(names) - RESERVED) == sorted(names)


@pytest.mark.parametrize("measurement", MEASUREMENTS.values(), ids=lambda m: m.name)
def test_a_name_needs_no_escaping_in_line_protocol(measurement: Measurement) -> None:
    assert [] == [n for n in (measurement.name, *measurement.tags, *measurement.fields) if not is_identifier(n)]


@pytest.mark.parametrize("stream", Stream)
def test_no_sample_field_is_hidden_by_a_field_of_its_message(stream: Stream) -> None:
    assert set() == set(SAMPLES[stream].model_fields) & set(MESSAGE_FIELDS)


@pytest.mark.parametrize("stream", Stream)
def test_every_sample_field_is_stored_save_the_offset_and_the_tags(stream: Stream) -> None:
    expected = {name: kind for name, kind in kinds(SAMPLES[stream]).items() if name not in {"dt_ms", *TAGS}}
    measurement = STREAM_MEASUREMENTS[stream]
    assert expected == {name: measurement.fields[name] for name in measurement.sample}
    assert {**expected, **MESSAGE_FIELDS} == measurement.fields


@pytest.mark.parametrize("measurement", MEASUREMENTS.values(), ids=lambda m: m.name)
def test_optional_fields_and_sample_fields_are_fields(measurement: Measurement) -> None:
    assert set() == (measurement.optional | set(measurement.sample)) - set(measurement.fields)


def test_a_field_has_one_kind_in_all_measurements() -> None:
    """A panel that reads a field from two measurements, and a merge of them, must not meet two types."""
    found: dict[str, dict[Kind, list[str]]] = defaultdict(lambda: defaultdict(list))
    for measurement in MEASUREMENTS.values():
        for name, kind in measurement.fields.items():
            found[name][kind].append(measurement.name)
    assert {} == {name: dict(by_kind) for name, by_kind in found.items() if len(by_kind) > 1}


def test_a_measurement_is_known_by_its_own_name() -> None:
    assert [m.name for m in MEASUREMENTS.values()] == list(MEASUREMENTS)
    assert {*Stream, "alert", "session", "week", "trend", "device", "fleet", "pipeline", "quarantine", "security", "canary"} == set(MEASUREMENTS)
    assert LASTING == {m.name for m in MEASUREMENTS.values() if m.lasting}


@pytest.mark.parametrize("measurement", MEASUREMENTS.values(), ids=lambda m: m.name)
def test_a_label_is_a_tag_and_no_field(measurement: Measurement) -> None:
    assert measurement.tags == (*TAGS, *measurement.labels)
    assert set() == set(measurement.tags) & set(measurement.fields)


def test_every_rule_has_a_field_that_counts_its_alerts() -> None:
    assert tuple(rule.id for rule in RULES) == RULE_IDS
    assert list(RULE_FIELDS) == list(RULE_IDS)
    assert set(RULE_FIELDS.values()) <= SESSION.optional
