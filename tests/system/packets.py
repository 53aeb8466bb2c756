"""MQTT as bytes, for saying what no client library would: packets made by hand on a plain connection."""

import socket
import struct
from typing import Self

from tests.servers import LOOPBACK

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 1, 2, 3, 4, 5, 6, 7
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = 8, 9, 10, 11, 12, 13, 14, 15
V311, V5 = 4, 5
PATIENCE_S = 60.0


def length_of(size: int) -> bytes:
    """The remaining length of a packet as it is written."""
    found = b""
    while True:
        size, digit = size >> 7, size & 127
        found += bytes([digit | (128 if size else 0)])
        if not size:
            return found


def packet(kind: int, body: bytes = b"", flags: int = 0) -> bytes:
    return bytes([kind << 4 | flags]) + length_of(len(body)) + body


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("!H", len(raw)) + raw


def connect(
    client_id: str | bytes, user: str | bytes | None = None, password: str | bytes | None = None, *, version: int = V311,
    clean: bool = True, keepalive_s: int = 60, name: bytes = b"MQTT", will: tuple[str, bytes] | None = None, flags: int | None = None,
) -> bytes:  # fmt: skip
    """A CONNECT; `flags` replaces the byte that tells what follows."""
    said = (2 if clean else 0) | (0x80 if user is not None else 0) | (0x40 if password is not None else 0) | (0x0C if will else 0)
    body = text(name) + bytes([version, said if flags is None else flags]) + struct.pack("!H", keepalive_s)
    body += b"\x00" if version == V5 else b""
    body += text(client_id)
    if will:
        body += (b"\x00" if version == V5 else b"") + text(will[0]) + text(will[1])
    body += text(user) if user is not None else b""
    return packet(CONNECT, body + (text(password) if password is not None else b""))


def publish(
    topic: str | bytes, payload: bytes, *, qos: int = 1, mid: int = 1, retain: bool = False, dup: bool = False, version: int = V311
) -> bytes:
    body = text(topic) + (struct.pack("!H", mid) if qos else b"") + (b"\x00" if version == V5 else b"") + payload
    return packet(PUBLISH, body, (8 if dup else 0) | qos << 1 | (1 if retain else 0))


def subscribe(*filters: str | bytes, mid: int = 1, qos: int = 1, version: int = V311) -> bytes:
    body = struct.pack("!H", mid) + (b"\x00" if version == V5 else b"") + b"".join(text(each) + bytes([qos]) for each in filters)
    return packet(SUBSCRIBE, body, 2)


class Wire:
    """One connection to a broker on which any bytes can be said."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((LOOPBACK, port), timeout=PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._unread = b""
        self.heard: list[tuple[str, bytes, bool]] = []
        """What was published to us: topic, payload, whether it was retained."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def say(self, *packets: bytes) -> Self:
        """Send; a peer that has hung up meanwhile is noticed when it is listened to."""
        try:
            self.socket.sendall(b"".join(packets))
        except OSError:
            pass
        return self

    def packet(self) -> tuple[int, bytes] | None:
        """(first byte, body) of the next packet that is no PUBLISH; None once the peer has hung up.

        Publications are noted in `heard` and acknowledged.
        """
        while (found := self._next()) is not None:
            first, body = found
            if first >> 4 != PUBLISH:
                return found
            size = struct.unpack("!H", body[:2])[0]
            rest = body[2 + size :]
            if first & 6:
                self.say(packet(PUBACK, rest[:2]))
                rest = rest[2:]
            self.heard.append((body[2 : 2 + size].decode("utf-8", "replace"), rest, bool(first & 1)))
        return None

    def _next(self) -> tuple[int, bytes] | None:
        head = self._read(2)
        if head is None:
            return None
        first, size, shift = head[0], head[1] & 127, 7
        last = head[1]
        while last & 128:
            more = self._read(1)
            if more is None:
                return None
            last = more[0]
            size |= (last & 127) << shift
            shift += 7
        body = self._read(size)
        return None if body is None else (first, body)

    def _read(self, size: int) -> bytes | None:
        while len(self._unread) < size:
            try:
                data = self.socket.recv(65_536)
            except ConnectionError:
                data = b""
            if not data:
                return None
            self._unread += data
        found, self._unread = self._unread[:size], self._unread[size:]
        return found

    def answer(self, *packets: bytes) -> int | None:
        """Send; the kind of the next packet, or None if the peer hung up instead."""
        found = self.say(*packets).packet()
        return found and found[0] >> 4

    def hung_up(self) -> bool:
        """Whether the peer ends the connection; what it says before is read and let go. Fails if it does neither for long."""
        while self.packet() is not None:
            pass
        return True

    def all_heard(self) -> list[tuple[str, bytes, bool]]:
        """What was published to us until the peer answers a ping."""
        while (found := self.say(packet(PINGREQ)).packet()) is not None and found[0] >> 4 != PINGRESP:
            pass
        return self.heard


class Device(Wire):
    """A connection that was let in."""

    def __init__(self, port: int, user: str, password: str, *, client_id: str | None = None, version: int = V311, clean: bool = True, **how: object) -> None:
        super().__init__(port)
        self.version = version
        self._mid = 0
        found = self.say(connect(client_id or user, user, password, version=version, clean=clean, **how)).packet()
        self.code = found[1][1] if found else None
        """What the broker answered: 0 for yes, None if it hung up."""
        self.session_present = bool(found and found[1][0] & 1)

    def publish(self, topic: str | bytes, payload: bytes, *, qos: int = 1, **how: bool) -> int | None:
        """The reason code of the PUBACK (0 in MQTT 3.1.1); None if the broker hung up. At QoS 0 what a ping finds."""
        self._mid = self._mid % 65_535 + 1
        self.say(publish(topic, payload, qos=qos, mid=self._mid, version=self.version, **how))
        if qos == 0:
            self.say(packet(PINGREQ))
        found = self.packet()
        if found is None or found[0] >> 4 not in (PUBACK, PUBREC, PINGRESP):
            return None
        return found[1][2] if found[0] >> 4 == PUBACK and len(found[1]) > 2 else 0

    def hear(self, *filters: str) -> bytes | None:
        """The return codes of a SUBACK, or None if the broker hung up."""
        found = self.say(subscribe(*filters, version=self.version)).packet()
        return found and found[1][3 if self.version == V5 else 2 :]
