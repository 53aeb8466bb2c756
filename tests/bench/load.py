"""A fleet at full speed or at a fixed rate: `current` messages of five samples, QoS 1, MQTT 3.1.1.

Each device owns one packet that was built before the start; sending it again changes only its
digits. Packets of one connection lie side by side, so a batch is one system call. Every PUBACK is
compared with the one that is due. A bounded number of messages is on its way: those sent, less
those of which the consumer says it has them (durable acknowledgements, or a count).

Publishes until its standard input is closed, awaits the last PUBACK, then prints one JSON line.
"""

import argparse
import json
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator

LOOPBACK = "127.0.0.1"
SAMPLES = 5
SAMPLE_MS = 1_000
SESSION_MESSAGES = 200
"""1,000 s of output, less than a session may last."""

BATCH = 20
WINDOW = 500
TICK_S = 0.002
TAKEN = "bench/taken"
DURABLE = "mc/v1/+/ack"
ALERTS = "mc/v1/+/alert"
LAST_ACK_S = 30.0

_MIDS = 65_535
_PUBACKS = b"".join(b"\x40\x02" + mid.to_bytes(2) for mid in range(1, _MIDS + 1)) * 2


def remaining_length(count: int) -> bytes:
    out = bytearray()
    while True:
        count, low = divmod(count, 128)
        out.append(low | (0x80 if count else 0))
        if not count:
            return bytes(out)


def text(said: str) -> bytes:
    return struct.pack("!H", len(said)) + said.encode()


def connect(port: int, client_id: str) -> socket.socket:
    sock = socket.create_connection((LOOPBACK, port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    body = text("MQTT") + b"\x04\x02" + struct.pack("!H", 0) + text(client_id)
    sock.sendall(b"\x10" + remaining_length(len(body)) + body)
    if sock.recv(4, socket.MSG_WAITALL) != b"\x20\x02\x00\x00":
        raise SystemExit(f"load: the broker refused {client_id}")
    return sock


class Device:
    """One device's packet inside its connection's buffer, and where its digits are."""

    def __init__(self, device_id: str, boot_id: int, peak_ua: float, event_ms: int) -> None:
        sample = {
            "window_ms": 1000, "i_set_ua": 200.0, "i_peak_ua": peak_ua, "i_rms_ua": 142.1, "i_dc_ua": 0.4,
            "q_pos_uc": 71.0, "q_neg_uc": 70.8, "v_peak_mv": 1610.0, "clip_frac": 0.0, "freq_hz": 8.3,
            "pulse_us": 60000.0, "duty": 0.5, "level": 3, "boost": False, "output_enabled": True, "mode": "alt_burst",
        }  # fmt: skip
        message = {
            "v": 1, "boot_id": boot_id, "seq": 9_876_543_210, "ts_ms": 8_765_432_109_876, "uptime_ms": 95_100,
            "session_id": "s-0123456789", "model": "toneduo-400", "hw": "B", "fw": "2.3.1",
            "samples": [{"dt_ms": at * SAMPLE_MS, **sample} for at in range(SAMPLES)],
        }  # fmt: skip
        self.device_id = device_id
        payload = json.dumps(message, separators=(",", ":")).encode()
        topic = text(f"mc/v1/{device_id}/current")
        body = topic + b"\0\0" + payload
        self.packet = b"\x32" + remaining_length(len(body)) + body
        self.mid_at = len(self.packet) - len(payload) - 2
        self.seq_at = self.packet.index(b"9876543210")
        self.ts_at = self.packet.index(b"8765432109876")
        self.session_at = self.packet.index(b"s-0123456789") + 2
        self.session = 0
        self.seq = 0
        self.event_ms = event_ms
        self.durable = 0

    def place(self, start: int) -> None:
        """Its packet begins here in the buffer."""
        for name in ("mid_at", "seq_at", "ts_at", "session_at"):
            setattr(self, name, getattr(self, name) + start)


class Line:
    """One connection with its devices."""

    def __init__(self, port: int, client_id: str, devices: list[Device]) -> None:
        self.sock = connect(port, client_id)
        self.devices = devices
        self.buffer = bytearray(b"".join(d.packet for d in devices))
        self.view = memoryview(self.buffer)
        self.starts = [0]
        for device in devices:
            device.place(self.starts[-1])
            self.starts.append(self.starts[-1] + len(device.packet))
        self.at = 0
        self.sent = 0
        self.acked = 0
        self._half = b""

    def send(self, most: int, sessions: int = SESSION_MESSAGES) -> int:
        """Publish for the next devices in turn, as far as the window and the buffer's end allow."""
        count = min(most, len(self.devices) - self.at, WINDOW - (self.sent - self.acked))
        if count <= 0:
            return 0
        buffer, mid = self.buffer, self.sent % _MIDS + 1
        for device in self.devices[self.at : self.at + count]:
            buffer[device.mid_at : device.mid_at + 2] = mid.to_bytes(2)
            mid = mid % _MIDS + 1
            buffer[device.seq_at : device.seq_at + 10] = b"%10d" % device.seq  # spaces are JSON, leading zeros are not
            buffer[device.ts_at : device.ts_at + 13] = b"%d" % device.event_ms
            if device.seq % sessions == 0:
                device.session += 1
                buffer[device.session_at : device.session_at + 10] = b"%010d" % device.session
            device.seq += 1
            device.event_ms += SAMPLES * SAMPLE_MS
        self.sock.sendall(self.view[self.starts[self.at] : self.starts[self.at + count]])
        self.at = (self.at + count) % len(self.devices)
        self.sent += count
        return count

    def take_acks(self) -> None:
        """Read PUBACKs; each must be the one that is due."""
        got = self._half + self.sock.recv(65_536)
        if len(got) == len(self._half):
            raise SystemExit("load: the broker closed the connection")
        whole = len(got) // 4 * 4
        start = self.acked % _MIDS * 4
        if got[:whole] != _PUBACKS[start : start + whole]:
            raise SystemExit("load: a PUBACK did not belong to the message that was due")
        self._half = got[whole:]
        self.acked += whole // 4


class Listener:
    """One subscription, for what the consumer says."""

    def __init__(self, port: int, client_id: str, topics: list[str]) -> None:
        self.sock = connect(port, client_id)
        body = b"\0\x01" + b"".join(text(topic) + b"\0" for topic in topics)
        self.sock.sendall(b"\x82" + remaining_length(len(body)) + body)
        self._buffer = b""

    def messages(self) -> Iterator[tuple[str, bytes]]:
        """(topic, payload) of the PUBLISH packets (QoS 0) that have come."""
        got = self._buffer + self.sock.recv(262_144)
        at = 0
        while len(got) - at >= 2:
            length, shift, body = 0, 0, at + 1
            while body < len(got) and got[body] & 0x80:
                length |= (got[body] & 0x7F) << shift
                shift, body = shift + 7, body + 1
            if body >= len(got):
                break
            length |= got[body] << shift
            body += 1
            if len(got) < body + length:
                break
            if got[at] & 0xF0 == 0x30:
                size = int.from_bytes(got[body : body + 2])
                yield got[body + 2 : body + 2 + size].decode(), got[body + 2 + size : body + length]
            at = body + length
        self._buffer = got[at:]


class Fleet:
    def __init__(self, options: argparse.Namespace) -> None:
        port = options.port
        boot_id = 1_000_000_000 + options.boot
        event_ms = time.time_ns() // 1_000_000 - 86_400_000
        devices = [Device(f"bench-{n:05d}", boot_id, 201.2, event_ms) for n in range(options.devices)]
        share = -(-len(devices) // options.connections)
        parts = [devices[n : n + share] for n in range(0, len(devices), share)]
        self.lines = [Line(port, f"bench-load-{n}", part) for n, part in enumerate(parts)]
        now_ms = event_ms + 86_400_000 - 60_000  # fresh, or its alerts would be told as those of a late upload
        self.alarmed = [Device(f"bench-alarm-{n:02d}", boot_id, 1400.0, now_ms) for n in range(20)] if options.alarms else []
        self.alarm = Line(port, "bench-alarm", self.alarmed) if self.alarmed else None
        self.by_id = {d.device_id: d for d in (*devices, *self.alarmed)}
        self.listener = Listener(port, "bench-listener", [TAKEN, DURABLE, ALERTS])
        self.backlog = options.backlog
        self.sent = 0
        self.taken = 0
        self.raised: dict[tuple[str, int], float] = {}
        self.alert_s: list[tuple[float, float]] = []
        self._poller = select.poll()
        self._poller.register(self.listener.sock, select.POLLIN)
        self._poller.register(sys.stdin, select.POLLIN)
        self._readers = {self.listener.sock.fileno(): self._listen}
        for line in (*self.lines, *([self.alarm] if self.alarm else [])):
            self._poller.register(line.sock, select.POLLIN)
            self._readers[line.sock.fileno()] = line.take_acks

    def _listen(self) -> None:
        for topic, payload in self.listener.messages():
            if topic == TAKEN:
                self.taken = int(payload)
            elif topic.endswith("/ack"):
                device = self.by_id.get(topic.split("/")[2])
                if device is not None:
                    upto = json.loads(payload)["upto"] + 1
                    self.taken += upto - device.durable
                    device.durable = upto
            else:
                self._alerted(payload)

    def _alerted(self, payload: bytes) -> None:
        now = time.perf_counter()
        said = json.loads(payload)
        alert = said.get("alert")
        if alert and said["event"] == "opened" and alert["session_id"]:  # of a device; others are of the line, or count many
            raised = self.raised.pop((alert["device_id"], int(alert["session_id"][2:])), None)
            if raised is not None:
                self.alert_s.append((raised, now - raised))

    def wait(self, timeout_s: float) -> bool:
        """Read what has come; False once the parent has closed our standard input."""
        going = True
        for fd, _ in self._poller.poll(max(0, timeout_s) * 1000):
            if fd in self._readers:
                self._readers[fd]()
            else:
                going = False
        return going

    def full_speed(self) -> None:
        going = True
        while going:
            done = 0
            for line in self.lines:
                done += line.send(min(BATCH, self.backlog - (self.sent + done - self.taken)))
            self.sent += done
            going = self.wait(0 if done else 0.05)

    def at_rate(self, per_s: float, alarms_per_s: float) -> None:
        began = time.perf_counter()
        going, alarms, turn = True, 0, 0
        while going:
            now = time.perf_counter()
            if self.alarm and int((now - began) * alarms_per_s) > alarms:
                device = self.alarmed[self.alarm.at]
                raised = time.perf_counter()
                if self.alarm.send(1, sessions=1):
                    self.raised[device.device_id, device.session] = raised
                    alarms += 1
                    self.sent += 1
            due = int((now - began) * per_s) - self.sent
            for _ in range(len(self.lines)):
                if due > 0:
                    done = self.lines[turn % len(self.lines)].send(due)
                    due, self.sent, turn = due - done, self.sent + done, turn + 1
            going = self.wait(TICK_S)

    def settle(self) -> None:
        """Until the broker has acknowledged everything and the last alert has come."""
        deadline = time.perf_counter() + LAST_ACK_S
        self._poller.unregister(sys.stdin)
        while time.perf_counter() < deadline:
            if self.acked == self.sent and not self.raised:
                return
            self.wait(0.05)

    @property
    def acked(self) -> int:
        return sum(line.acked for line in self.lines) + (self.alarm.acked if self.alarm else 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--backlog", type=int, default=20_000)
    parser.add_argument("--rate", type=float, default=0)
    parser.add_argument("--alarms", type=float, default=0)
    parser.add_argument("--boot", type=int, default=0)
    options = parser.parse_args()
    fleet = Fleet(options)
    print(json.dumps({"bytes": len(fleet.lines[0].devices[0].packet)}), flush=True)
    began, began_cpu = time.time(), time.process_time()
    began_s = time.perf_counter()
    if options.rate:
        fleet.at_rate(options.rate, options.alarms)
    else:
        fleet.full_speed()
    ended, ended_cpu = time.time(), time.process_time()
    fleet.settle()
    answer = {
        "began": began,
        "ended": ended,
        "cpu_s": ended_cpu - began_cpu,
        "sent": fleet.sent,
        "acked": fleet.acked,
        "alerts": [[raised - began_s, took] for raised, took in fleet.alert_s],
        "alerts_missing": len(fleet.raised),
    }
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
