"""The alert rules over a real InfluxDB: their questions, the latest value of each series, their conditions."""

import re
import urllib.request

import pytest

from dashboards.alerting import RULES, Alerting
from schemas.alerts import LINE_RULE_IDS
from tests.servers import InfluxDB

NOW_MS = 1_795_298_430_000
MINUTE_MS = 60_000
RULE = {rule.uid: rule for rule in RULES}

Labels = frozenset[tuple[str, str]]


def write(influxdb: InfluxDB, bucket: str, *lines: str) -> None:
    body = "\n".join(lines).encode()
    urllib.request.urlopen(f"{influxdb.url}/api/v2/write?bucket={bucket}&precision=ms", body, timeout=120).close()


def latest(influxdb: InfluxDB, rule: Alerting, text: str) -> dict[Labels, float]:
    """The last value of each series, by its tags: what Grafana's `reduce` makes of it."""
    asked = text.replace("$timeFilter", f"time >= {NOW_MS - rule.range_s * 1000}ms and time <= {NOW_MS}ms")
    tags = re.findall(r'"(\w+)"', asked.partition("GROUP BY")[2]) if "FROM (" not in asked else []
    found: dict[Labels, float] = {}
    for row in influxdb.query(asked):
        (value,) = [value for name, value in row.items() if name not in (*tags, "time")]
        if value is not None:
            found[frozenset((tag, row[tag]) for tag in tags)] = value
    return found


def firing(influxdb: InfluxDB, uid: str) -> list[dict[str, str]]:
    """The labels for which the condition holds, as Grafana's `math` joins the answers by labels."""
    rule = RULE[uid]
    answers = {name: latest(influxdb, rule, text) for name, text in rule.asked.items()}
    condition = re.sub(r"\$(\w+)", r"\1", rule.fires).replace("||", "or").replace("&&", "and")
    shared = set.intersection(*(set(answer) for answer in answers.values()))
    held = [labels for labels in shared if eval(condition, {}, {name: answer[labels] for name, answer in answers.items()})]
    return [dict(labels) for labels in sorted(map(sorted, held))]


def worker(name: str, minutes_ago: range, **fields: float) -> list[str]:
    """A point a minute half, of a worker that is well but for `fields`."""
    values = {"accepted": 0, "unseen_s": 0.5, "broker_connected": 1, "store_ok": 1, "outbox_age_s": 0.5, "missing": 0, "blind": 0, "pressure": 0, "certificate_level": 1} | fields
    counts = ("accepted", "broker_connected", "store_ok", "missing", "blind", "pressure", "certificate_level")
    points = []
    for number, half in enumerate(range(minutes_ago.start * 2, minutes_ago.stop * 2, -1)):
        told = {**values, "accepted": values["accepted"] + number * 10}
        written = ",".join(f"{key}={int(value)}i" if key in counts else f"{key}={float(value)}" for key, value in told.items())
        points.append(f"pipeline,device_id={name},model=all,fw=all {written} {NOW_MS - half * MINUTE_MS // 2}")
    return points


def test_a_well_fleet_sets_nothing_off(influxdb: InfluxDB) -> None:
    write(influxdb, influxdb.database, *worker("~worker-1", range(30, -1, -1)))
    assert {uid: firing(influxdb, uid) for uid in RULE if firing(influxdb, uid)} == {}


def test_one_worker_of_two_that_says_nothing_more_is_named_and_the_other_rules_are_quiet(influxdb: InfluxDB) -> None:
    write(influxdb, influxdb.database, *worker("~worker-1", range(30, -1, -1)), *worker("~worker-2", range(30, 3, -1)))
    assert {uid: firing(influxdb, uid) for uid in RULE if firing(influxdb, uid)} == {"mc-worker-silent": [{"device_id": "~worker-2"}]}


@pytest.mark.parametrize(
    ("broken", "speaks"),
    [({"blind": 2, "broker_connected": 0}, "mc-line-blind"), ({"pressure": 1}, "mc-storage-high"), ({"pressure": 2}, "mc-storage-stopped"),
     ({"certificate_level": 2}, "mc-certificate-ends")],
    ids=str,
)
def test_what_is_wrong_with_a_worker_is_told_by_one_rule(influxdb: InfluxDB, broken: dict[str, float], speaks: str) -> None:
    write(influxdb, influxdb.database, *worker("~worker-1", range(30, 1, -1)), *worker("~worker-1", range(1, -1, -1), accepted=600, **broken))
    assert {uid: firing(influxdb, uid) for uid in RULE if firing(influxdb, uid)} == {speaks: [{"device_id": "~worker-1"}]}


def test_what_the_worker_does_not_call_blind_is_no_outage(influxdb: InfluxDB) -> None:
    """It holds back for as long as a restart takes."""
    write(influxdb, influxdb.database, *worker("~worker-1", range(30, 1, -1)), *worker("~worker-1", range(1, -1, -1), accepted=600, broker_connected=0))
    assert firing(influxdb, "mc-line-blind") == []


def test_an_outage_that_is_over_is_told_no_more(influxdb: InfluxDB) -> None:
    write(influxdb, influxdb.database, *worker("~worker-1", range(30, 1, -1), blind=1), *worker("~worker-1", range(1, -1, -1), accepted=600))
    assert firing(influxdb, "mc-line-blind") == []


def alert(rule: str, device: str, **fields: int) -> str:
    written = ",".join(f"{key}={value}i" for key, value in ({"critical": 1, "unacknowledged": 1, "open": 1} | fields).items())
    return f"alert,device_id={device},model=toneduo-400,fw=2.3.1,rule={rule} {written} {NOW_MS - 60 * MINUTE_MS}"


def test_a_critical_alert_is_told_until_somebody_has_acknowledged_it_open_or_not(influxdb: InfluxDB) -> None:
    write(influxdb, influxdb.long_bucket, alert("overcurrent-peak", "d-1"), alert("overcurrent-rms", "d-2", open=0),
          alert("overcurrent-peak", "d-3", unacknowledged=0), alert("gel-dry", "d-4", critical=0))  # fmt: skip
    who = [(labels["device_id"], labels["rule"]) for labels in firing(influxdb, "mc-critical-unacknowledged")]
    assert who == [("d-1", "overcurrent-peak"), ("d-2", "overcurrent-rms")]
    write(influxdb, influxdb.long_bucket, alert("overcurrent-peak", "d-1", unacknowledged=0), alert("overcurrent-rms", "d-2", unacknowledged=0))
    assert firing(influxdb, "mc-critical-unacknowledged") == []


def test_a_cluster_is_told_by_its_own_rule_alone(influxdb: InfluxDB) -> None:
    write(influxdb, influxdb.long_bucket, alert("fleet-cluster", "~fleet"))
    assert firing(influxdb, "mc-fleet-cluster") == [{"model": "toneduo-400", "fw": "2.3.1"}]
    assert firing(influxdb, "mc-critical-unacknowledged") == []


@pytest.mark.parametrize("rule", LINE_RULE_IDS)
def test_an_alert_of_the_line_itself_is_not_told_as_one_of_a_device(influxdb: InfluxDB, rule: str) -> None:
    write(influxdb, influxdb.long_bucket, alert(rule, "~worker-1"))
    assert firing(influxdb, "mc-critical-unacknowledged") == []
    assert firing(influxdb, "mc-security-event") == ([{"device_id": "~worker-1"}] if rule == "security-event" else [])


def test_refusals_count_beside_what_came(influxdb: InfluxDB) -> None:
    refused = f"quarantine,device_id=~worker-1,model=all,fw=all,reason=schema messages={{}}i {NOW_MS - MINUTE_MS}"
    write(influxdb, influxdb.database, *worker("~worker-1", range(14, -1, -1)), refused.format(10))
    assert firing(influxdb, "mc-quarantine-rate") == []
    write(influxdb, influxdb.database, refused.format(11))
    assert firing(influxdb, "mc-quarantine-rate") == [{}]


def test_what_is_missing_counts_beside_what_came(influxdb: InfluxDB) -> None:
    write(influxdb, influxdb.database, *worker("~worker-1", range(30, -1, -1), missing=11))
    assert firing(influxdb, "mc-missing-share") == [{}]


def test_an_old_outbox_is_told(influxdb: InfluxDB) -> None:
    write(influxdb, influxdb.database, *worker("~worker-1", range(30, -1, -1), outbox_age_s=301))
    assert firing(influxdb, "mc-outbox-old") == [{"device_id": "~worker-1"}]
