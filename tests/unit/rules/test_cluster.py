"""The rule on the fleet: one danger on several devices that have something in common."""

from typing import Any

import pytest

from ingest.safety.cluster import Danger, Group, find_clusters
from schemas.alerts import FLEET, Alert

DAY = 86_400_000
WEEK = 7 * DAY
T0 = 1_795_298_400_000
LOT, FIRMWARE = Group("lot", "toneduo-400", "L-1"), Group("firmware", "toneduo-400", "2.3.1")


def danger(day: float, device: str, rule: str = "current-density", model: str = "toneduo-400", fw: str = "2.3.1", lot: str | None = "L-1") -> Danger:
    return Danger(T0 + round(day * DAY), f"{device}-{day}-{rule}", device, rule, model, fw, lot)


def unexposed() -> Any:
    return {}, []


def clusters(dangers: list[Danger], exposures: Any = unexposed, now_day: float = 0) -> list[Alert]:
    return find_clusters(dangers, exposures, T0 + round(now_day * DAY))


def on(devices: int, **fields: Any) -> list[Danger]:
    return [danger(n, f"d-{n}", **fields) for n in range(devices)]


def of_lot(alerts: list[Alert]) -> list[Alert]:
    return [a for a in alerts if "lot" in a.detail]


def test_a_third_device_of_a_lot_or_a_firmware_makes_a_cluster_of_each() -> None:
    assert clusters(on(2)) == []
    firmware, lot = clusters(on(3))
    assert (firmware.detail, firmware.fw) == ("current-density on devices of firmware 2.3.1 of toneduo-400", "2.3.1")
    assert (lot.rule, lot.severity, lot.device_id, lot.session_id, lot.model, lot.fw) == (
        "fleet-cluster", "critical", FLEET, None, "toneduo-400", None,
    )  # fmt: skip
    assert (lot.detail, lot.value, lot.limit, lot.unit) == ("current-density on devices of lot L-1 of toneduo-400", 3.0, 3.0, "devices")
    assert (lot.onset_ms, lot.devices, lot.state) == (T0 + 2 * DAY, ["d-0", "d-1", "d-2"], "open")


@pytest.mark.parametrize(
    "others",
    [
        [danger(2, "d-2", rule="overtemperature")],
        [danger(2, "d-2", model="tonetip-e")],
        [danger(2, "d-2", fw="2.4.0", lot="L-2")],
        [danger(2, "d-1")],
        [danger(7, "d-2")],
    ],
    ids=["another rule", "another model", "nothing in common", "the same device again", "a week after the first"],
)
def test_what_has_not_enough_in_common_is_no_cluster(others: list[Danger]) -> None:
    assert clusters([*on(2), *others]) == []


def test_a_week_is_seven_days_to_the_millisecond() -> None:
    third = danger(7, "d-2")
    assert clusters([*on(2), third]) == []
    just_within = Danger(third.onset_ms - 1, *(getattr(third, name) for name in ("alert_id", "device_id", "rule", "model", "fw", "lot")))
    assert len(clusters([*on(2), just_within])) == 2


def test_devices_without_a_lot_may_share_a_firmware_only() -> None:
    assert [a.detail for a in clusters(on(3, lot=None))] == ["current-density on devices of firmware 2.3.1 of toneduo-400"]


def test_an_unrelated_lot_is_left_alone() -> None:
    mixed = [*on(3), *[danger(n, f"e-{n}", lot="L-2") for n in range(2)]]
    assert [a.detail for a in of_lot(clusters(mixed))] == ["current-density on devices of lot L-1 of toneduo-400"]


def test_more_devices_join_the_cluster_that_is_open() -> None:
    (alert,) = of_lot(clusters([*on(6)]))
    assert (alert.value, alert.devices, alert.updated_ms) == (6.0, [f"d-{n}" for n in range(6)], T0 + 5 * DAY)


def test_a_cluster_ends_after_a_week_without_another_and_may_begin_again() -> None:
    assert of_lot(clusters(on(3), now_day=9))[0].state == "open"
    (ended,) = of_lot(clusters(on(3), now_day=9.001))
    assert (ended.state, ended.closed_ms, ended.close_reason) == ("closed", T0 + 9 * DAY, "cleared")
    again = [*on(3), *[danger(20 + n, f"e-{n}") for n in range(3)]]
    assert [(a.state, (a.onset_ms - T0) // DAY) for a in of_lot(clusters(again, now_day=22))] == [("closed", 2), ("open", 22)]


# -- by rate --------------------------------------------------------------------------------------------


def exposed(mine_h: float, rest_h: float) -> Any:
    """Hours of output within the week, of the group and of the rest of the fleet."""
    mine, rest = [(T0, mine_h * 3600)], [(T0, rest_h * 3600)]
    return lambda: ({LOT: mine, FIRMWARE: mine}, mine + rest)


TWO = [danger(0, "d-0"), danger(1, "d-1"), danger(2, "d-0")]
ELSEWHERE = [danger(1, "x-1", model="tonetip-e", fw="1.0", lot=None)]


@pytest.mark.parametrize(("mine_h", "rest_h", "expected"), [(10, 20, 1), (10, 19.9, 0), (0, 100, 0)])
def test_three_alerts_on_two_devices_are_a_cluster_where_the_rest_of_the_fleet_has_none(mine_h: float, rest_h: float, expected: int) -> None:
    assert len(of_lot(clusters(TWO, exposed(mine_h, rest_h)))) == expected


@pytest.mark.parametrize(("rest_h", "expected"), [(16.6, 0), (20, 1)])
def test_the_rate_must_be_more_than_five_times_that_of_the_rest(rest_h: float, expected: int) -> None:
    """3 in 10 h against 1 in the rest: 0.3 > 5 / rest from 16.7 h on, and 20 h are asked for at least."""
    assert len(of_lot(clusters([*TWO, *ELSEWHERE], exposed(10, rest_h)))) == expected
    assert len(of_lot(clusters([*TWO, *ELSEWHERE], exposed(60, 100)))) == 0  # 0.05 is 5 times 0.01, not more
    assert len(of_lot(clusters([*TWO, *ELSEWHERE], exposed(59, 100)))) == 1


def test_a_high_rate_of_one_device_is_that_devices_matter() -> None:
    assert clusters([danger(n / 10, "d-0") for n in range(30)], exposed(1, 1000)) == []


def test_two_alerts_are_no_rate() -> None:
    assert clusters(TWO[:2], exposed(1, 1000)) == []


def test_exposure_is_looked_up_only_where_a_rate_matters_and_dangers_count_once() -> None:
    def never() -> Any:
        raise AssertionError

    assert len(clusters(on(2) + on(2), never)) == 0
    assert clusters(on(3) + on(3), lambda: ({}, [])) == clusters(on(3), lambda: ({}, []))
