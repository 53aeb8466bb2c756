"""A broker that lets in everybody and keeps what is retained, and a list of the devices that are known."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Mosquitto, wait_until
from tests.system.bad_inputs import DANGER
from tests.system.line import Installation, held_by_duckdb, message, topic
from tests.system.packets import Device

pytestmark = pytest.mark.system


def row(*numbers: int) -> pytest.MarkDecorator:
    return pytest.mark.row(*numbers)


@pytest.fixture(scope="module")
def open_line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Installation, Mosquitto, Path]]:
    directory = tmp_path_factory.mktemp("open")
    known = directory / "known"
    known.write_text("# the fleet\nknown-1\n")
    with (
        Mosquitto(directory / "broker", settings={"retain_available": "true", "max_packet_size": None}) as broker,
        Installation(directory / "line", broker="external", mqtt_port=broker.port, registry_file=known, mqtt_protocol="3.1.1") as line,
    ):
        yield line, broker, known


def say(broker: Mosquitto, on: str, payload: bytes, **how: Any) -> None:
    with Device(broker.port, "x", "x") as device:
        assert 0 == device.publish(on, payload, **how)


@row(21)
@pytest.mark.parametrize("name", ["tone 1", "", "a" * 65, "tone-\u0661", "\u0455-1", "a.b", "<b>", "$SYS", "'; DROP TABLE raw; --", "known-1 "])
def test_a_device_id_that_is_none_is_kept_apart_where_a_broker_delivers_it(open_line: tuple, name: str) -> None:
    line, broker, _ = open_line
    before = line.ledger()["accepted"]
    say(broker, f"mc/v1/{name}/current", message(0, **DANGER))
    line.wait_settled(before + 1)
    entry = line.get("/api/quarantine?limit=1")["entries"][0]
    assert ("topic_invalid", f"mc/v1/{name}/current", None) == (entry["reason"], entry["topic"], entry["device_id"])
    assert any(alert["device_id"] == "unidentified" for alert in line.get("/api/alerts?rule=overcurrent-peak")["alerts"])


@row(22)
def test_an_unknown_device_waits_in_quarantine_with_its_danger_told_until_it_is_added(open_line: tuple) -> None:
    line, broker, known = open_line
    before = line.ledger()["accepted"]
    say(broker, topic("stranger-1"), message(0, **DANGER))
    say(broker, topic("known-1"), message(0))
    line.wait_settled(before + 2)
    (entry,) = line.get("/api/quarantine?device=stranger-1")["entries"]
    assert "unknown_device" == entry["reason"]
    assert {"overcurrent-peak"} <= {alert["rule"] for alert in line.get("/api/alerts?device=stranger-1")["alerts"]}
    checked = line.command("check")
    assert f"1 device in {known}" in checked.stdout
    known.write_text("known-1\nstranger-1\n")
    wait_until(lambda: line.logged("event=registry_read"), 15, "the worker to read the registry again")
    say(broker, topic("stranger-1"), message(1))
    line.wait_settled(before + 3)
    done = line.command("quarantine", "replay", "--device", "stranger-1", "--yes")
    assert 0 == done.returncode, done.stderr
    line.wait_settled(before + 4)
    assert 2 == next(each for each in line.get("/api/devices")["devices"] if each["device_id"] == "stranger-1")["stored"]


@row(22)
def test_a_registry_that_is_none_stops_the_start_with_its_line(tmp_path: Path) -> None:
    known = tmp_path / "known"
    known.write_text("fine-1\nnot fine\n")
    line = Installation(tmp_path / "line", registry_file=known, mqtt_port=0)
    done = line.command("run")
    assert (2, "") == (done.returncode, done.stdout)
    assert f"{known}, line 2: 'not fine'" in done.stderr and 1 == len(done.stderr.splitlines())


@row(32)
def test_what_a_broker_replays_as_retained_is_kept_apart_and_stored_never_twice(open_line: tuple) -> None:
    """In MQTT 3.1.1 each subscription brings it again, and so does each start of the worker."""
    line, broker, _ = open_line
    before = line.ledger()["accepted"]
    say(broker, topic("known-1"), message(40, boot_id=8), retain=True)
    line.wait_settled(before + 1)
    line.stop()
    line.start()
    line.wait_settled(before + 2)
    (entry,) = line.get("/api/quarantine?reason=retained")["entries"]
    assert topic("known-1") == entry["topic"]
    line.stop()
    assert 1 == held_by_duckdb(line.data)[("known-1", 8, 40)]
