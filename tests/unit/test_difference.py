"""Two judgements of the same readings, alert by alert: what is the same danger, and what differs in it."""

from typing import Any

import pytest

from ingest.safety.difference import Difference, Kind, compare
from schemas.alerts import FLEET, Alert, alert_id


def alert(onset_s: float, closed_s: float | None = None, **fields: Any) -> Alert:
    said = {
        "rule": "overcurrent-rms", "rule_version": 1, "severity": "critical", "device_id": "tone-1", "session_id": "s-1",
        "model": "toneduo-400", "hw": "B", "fw": "2.3.1", "profile_id": "toneduo-400", "profile_version": 1,
        "state": "open" if closed_s is None else "closed", "onset_ms": round(onset_s * 1000), "opened_ms": round(onset_s * 1000) + 2000,
        "updated_ms": round(onset_s * 1000) + 2000, "closed_ms": None if closed_s is None else round(closed_s * 1000),
        "value": 400.0, "limit": 353.0, "unit": "µA", "source": "test",
    } | fields  # fmt: skip
    name = alert_id(said["rule"], said["device_id"], str(said["session_id"]), said["onset_ms"])
    return Alert(**{"id": name, **said})


def told(differences: list[Difference]) -> list[tuple[str, int | None, int | None, tuple[str, ...]]]:
    """(kind, onset before s, onset after s, fields), in order of time."""
    found = [
        (d.kind.value, d.before and d.before.onset_ms // 1000, d.after and d.after.onset_ms // 1000, d.fields) for d in differences
    ]
    return sorted(found, key=lambda each: (min(t for t in each[1:3] if t is not None), each[0]))


def test_the_same_alert_in_both_is_the_same() -> None:
    assert [("same", 10, 10, ())] == told(compare([alert(10, 20)], [alert(10, 20)]))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"severity": "warning"}, ("severity",)),
        ({"value": 400.1}, ("value",)),
        ({"limit": 300.0}, ("limit",)),
        ({"unit": "mA/cm²"}, ("unit",)),
        ({"profile_id": "toneduo-401"}, ("profile_id",)),
        ({"profile_version": 2}, ("profile_version",)),
        ({"opened_ms": 13_001}, ("opened_ms",)),
        ({"opened_ms": 13_000}, ()),
        ({"closed_ms": 18_999}, ("closed_ms",)),
        ({"closed_ms": 21_000}, ()),
        ({"closed_ms": None, "state": "open"}, ("closed_ms",)),
        ({"updated_ms": 19_000, "evidence": [{"boot_id": 1, "seq": 2}], "retrospective": True}, ()),
        ({"opened_ms": 14_000, "limit": 300.0, "severity": "info"}, ("opened_ms", "severity", "limit")),
    ],
)
def test_an_alert_is_changed_when_what_a_person_acts_on_differs_or_a_time_by_more_than_a_second(
    fields: dict[str, Any], named: tuple[str, ...]
) -> None:
    kind = "changed" if named else "same"
    assert [(kind, 10, 10, named)] == told(compare([alert(10, 20)], [alert(10, 20, **fields)]))


def test_an_onset_that_moves_is_a_change_and_not_one_alert_gone_and_another_come() -> None:
    differences = compare([alert(10, 20)], [alert(7, 20, opened_ms=12_000)])
    assert [("changed", 10, 7, ("onset_ms",))] == told(differences)


def test_alerts_that_do_not_overlap_are_one_gone_and_one_come() -> None:
    assert [("removed", 10, None, ()), ("added", None, 21, ())] == told(compare([alert(10, 20)], [alert(21, 25)]))


def test_an_open_alert_overlaps_whatever_comes_later() -> None:
    assert [("changed", 10, 900, ("onset_ms", "opened_ms", "closed_ms"))] == told(compare([alert(10)], [alert(900, 905)]))


def test_an_alert_that_falls_into_two_is_one_changed_and_one_added() -> None:
    differences = compare([alert(10, 60)], [alert(12, 20), alert(40, 60)])
    assert [("changed", 10, 12, ("onset_ms", "opened_ms", "closed_ms")), ("added", None, 40, ())] == told(differences)


def test_two_alerts_that_grow_together_are_one_changed_and_one_removed() -> None:
    differences = compare([alert(12, 20), alert(40, 60)], [alert(10, 60)])
    assert [("changed", 12, 10, ("onset_ms", "opened_ms", "closed_ms")), ("removed", 40, None, ())] == told(differences)


def test_the_alert_of_the_same_id_comes_before_one_that_merely_overlaps() -> None:
    differences = compare([alert(10, 60)], [alert(8, 12), alert(10, 60)])
    assert [("added", None, 8, ()), ("same", 10, 10, ())] == told(differences)


@pytest.mark.parametrize("other", [{"rule": "overcurrent-peak"}, {"device_id": "tone-2"}, {"session_id": "s-2"}, {"session_id": None}])
def test_alerts_of_another_rule_device_or_session_are_never_the_same_danger(other: dict[str, str]) -> None:
    differences = compare([alert(10, 20)], [alert(11, 20, **other)])
    assert [("removed", 10, None, ()), ("added", None, 11, ())] == told(differences)


def test_alerts_on_the_fleet_are_told_apart_by_what_their_devices_have_in_common() -> None:
    about = {"rule": "fleet-cluster", "device_id": FLEET, "session_id": None, "hw": None}
    lot, firmware = {"detail": "overcurrent-rms on devices of lot L-1", "fw": None}, {"detail": "overcurrent-rms on devices of firmware 2.3.1"}
    before = [alert(10, 99, **about, **lot), alert(10, 99, id="f", **about, **firmware)]
    differences = compare(before, [alert(11.5, 99, **about, **lot)])
    assert [("changed", 10, 11, ("onset_ms", "opened_ms")), ("removed", 10, None, ())] == told(differences)


def test_the_gravest_difference_comes_first_and_what_is_only_called_otherwise_last() -> None:
    before = [alert(10, 20), alert(30, 40, severity="warning"), alert(50, 60, severity="info")]
    after = [alert(10, 20, profile_version=2), alert(30, 40, severity="critical"), alert(50, 60, severity="info", value=1.0), alert(70, 80)]
    ordered = sorted(compare(before, after), key=lambda each: each.gravity)
    assert [30, 70, 50, 10] == [each.alert.onset_ms // 1000 for each in ordered]
    assert [Kind.CHANGED, Kind.ADDED, Kind.CHANGED, Kind.CHANGED] == [each.kind for each in ordered]
