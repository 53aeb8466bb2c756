"""What a line has told the store of alerts, sessions and refused messages, against what is on its record."""

from collections import Counter

from schemas.measurements import RULE_FIELDS, SESSION
from tests.line import Line

SEVERITIES = ("critical", "warning", "info")


def sums(fields: list[dict[str, float]], names: list[str]) -> dict[str, float]:
    return {name: sum(each.get(name, 0) for each in fields) for name in names}


def told_agrees(line: Line) -> None:
    """Fails if a sum over the store's points is another than the journal's. The store has been away all the time."""
    _alerts_agree(line)
    _sessions_agree(line)
    told = Counter()
    for point in line.points("quarantine"):
        told[point.tags[-1]] += point.fields["messages"]
    assert told + Counter(line.journal.refused) == Counter(line.journal.quarantine_by_reason())
    assert told.total() + sum(line.journal.refused.values()) == line.journal.quarantined


def _alerts_agree(line: Line) -> None:
    on_record, kept = line.alerts(), line.kept("alert")
    assert {f["alert_id"] for f in kept.values()} == {a["id"] for a in on_record}
    stand = [a for a in on_record if a["state"] != "withdrawn"]
    assert sums(list(kept.values()), [*SEVERITIES, "open", "unacknowledged"]) == {
        **{severity: sum(a["severity"] == severity for a in stand) for severity in SEVERITIES},
        "open": sum(a["state"] == "open" for a in on_record),
        "unacknowledged": sum(a["acknowledged"] is None for a in stand),
    }
    assert len(kept) == len(on_record)


def _sessions_agree(line: Line) -> None:
    kept = {(tags[0], fields["session_id"]): fields for (tags, _), fields in line.kept("session").items()}
    assert len(kept) == len(line.kept("session"))
    for (device_id, session_id), fields in kept.items():
        (record, _) = line.journal.session(device_id, session_id)
        of_session = [
            a for a in line.alerts(device_id=device_id) if a["session_id"] == session_id and a["state"] != "withdrawn"
        ]
        expected = {f"alerts_{severity}": sum(a["severity"] == severity for a in of_session) for severity in SEVERITIES}
        expected |= {name: sum(a["rule"] == rule for a in of_session) for rule, name in RULE_FIELDS.items()}
        zones = [name for name in SESSION.fields if name.startswith("zone_") and name.endswith("_s")]
        expected |= {name: record.zone_s.get(name[5:-2], 0) for name in zones}
        assert {name: fields.get(name, 0) for name in expected} == expected
    ended = {(d, r.session_id) for d in line.core.devices for r, _ in line.journal.sessions(d, 0, 2**62) if r.ended}
    assert ended <= set(kept)
