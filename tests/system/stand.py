"""A broker with the real line behind it, on which every bad input of the table has been tried."""

import json
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers import wait_until
from tests.stack import StackBroker
from tests.system.bad_inputs import DANGER, PAYLOADS, STORED, Case, plain
from tests.system.line import Installation, balanced, document, topic
from tests.system.packets import Device

WORKER = "ingest-worker"
DEVICES = 9
"""So many share the rows of payloads."""


@dataclass
class Sent:
    """One case as it was sent."""

    case: Case
    device_id: str
    session_id: str
    payload: bytes
    dangerous: bool


class Stand:
    """A line and its broker, with devices that may speak. `good` counts what each device said in order."""

    def __init__(self, line: Installation, port: int, passwords: dict[str, str], kind: str, broker_log: Path) -> None:
        self.line, self.port, self.kind, self.broker_log = line, port, kind, broker_log
        self.passwords = passwords
        self.free = sorted(passwords, reverse=True)
        self.next_seq: Counter[str] = Counter()
        self.stored: set[tuple[str, int, int]] = set()
        self.sent: list[Sent] = []
        self.published = 0
        """Messages that the broker took and the line must account for."""
        self.entries: list[dict[str, Any]] = []

    def device(self) -> str:
        """One that nobody has used yet."""
        return self.free.pop()

    def connect(self, device_id: str, **how: Any) -> Device:
        """A connection of this device, once it is let in: who comes again in the same instant may have to wait a second."""

        def let_in() -> Device | None:
            device = Device(self.port, device_id, self.passwords[device_id], **how)
            if device.code == 0:
                return device
            device.socket.close()
            return None

        return wait_until(let_in, 15, f"{device_id} to be let in")

    def document(self, device_id: str, **said: Any) -> dict[str, Any]:
        seq = self.next_seq[device_id]
        self.next_seq[device_id] += 1
        return document(seq, **said)

    def say_well(self, device: Device, device_id: str) -> None:
        """The next good message, which must be stored whatever came before it."""
        said = self.document(device_id)
        assert 0 == device.publish(topic(device_id), plain(said))
        self.took(device_id, said["seq"])

    @property
    def worker_name(self) -> str:
        return WORKER if self.kind == "stack" else json.loads((self.line.data / "credentials" / "worker.json").read_text())["name"]

    def took(self, device_id: str, seq: int, boot_id: int = 7) -> None:
        self.published += 1
        self.stored.add((device_id, boot_id, seq))

    def serves(self, device_id: str | None = None) -> None:
        """The broker is alive: it lets a device in and takes what it says. At the end all of that must be stored."""
        device_id = device_id or self.free[0]
        with self.connect(device_id) as device:
            self.say_well(device, device_id)

    def settle(self) -> dict[str, int]:
        """The ledger, once everything that was published is accounted for."""
        ledger = self.line.wait_settled(self.published)
        assert balanced(ledger)
        return ledger

    def account(self, device_id: str) -> dict[str, Any]:
        """What the line says of one device."""
        return next((each for each in self.line.get("/api/devices")["devices"] if each["device_id"] == device_id), {})

    def quarantined(self, **wanted: Any) -> list[dict[str, Any]]:
        found = self.line.get("/api/quarantine?limit=10000")["entries"]
        return [each for each in found if all(each[key] == value for key, value in wanted.items())]

    def send_all(self) -> None:
        """Every payload, harmless and dangerous, each followed by a good message. Before that each device was here once."""
        for device_id in self.free:
            self.connect(device_id).socket.close()
        for number in range(DEVICES):
            device_id = self.device()
            with self.connect(device_id) as device:
                for at, case in enumerate(PAYLOADS):
                    if case.row % DEVICES != number:
                        continue
                    for dangerous in (False, True) if case.alarm and case.reason != STORED else (False,):
                        session_id = f"s-{at}-{'d' if dangerous else 'h'}"
                        said = self.document(device_id, session_id=session_id, **(DANGER if dangerous else {}))
                        payload = case.spoil(said)
                        assert 0 == device.publish(topic(device_id), payload), case.name
                        if case.reason == STORED:
                            self.took(device_id, said["seq"])
                        else:
                            self.published += 1
                        self.sent.append(Sent(case, device_id, session_id, payload, dangerous))
                        self.say_well(device, device_id)
        self.ledger = self.settle()
        self.entries = [self.line.get(f"/api/quarantine/{each['id']}") for each in self.quarantined()]
        self.alerts = self.line.get("/api/alerts?limit=10000&rule=overcurrent-peak")["alerts"]


def stack(directory: Path, running: ExitStack) -> Stand:
    broker = running.enter_context(StackBroker(directory / "broker"))
    settings = {"mqtt_port": broker.inner_port, "mqtt_username": WORKER, "mqtt_client_id": WORKER, "mqtt_password_file": broker.secrets / "mqtt_worker_password"}
    line = running.enter_context(Installation(directory / "line", broker="external", **settings))
    return Stand(line, broker.port, json.loads((broker.secrets / "demo_devices.json").read_text()), "stack", broker.log)


def embedded(directory: Path, running: ExitStack) -> Stand:
    line = Installation(directory / "line", mqtt_port=0)
    passwords = line.answer("credentials", "create", *(f"device-{number:02}" for number in range(28)))
    running.enter_context(line)
    port = int((line.data / "credentials" / "broker.port").read_text())
    return Stand(line, port, passwords, "embedded", line.data / "broker.log")
