"""MQTT 3.1.1 and 5 as far as a device needs it, on bytes alone: packets are made and taken apart here.

Written for the fault harness, so that it shares no code with what it judges.
"""

from typing import NamedTuple

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ, PINGRESP, DISCONNECT = 1, 2, 3, 4, 8, 9, 12, 13, 14
V311, V5 = 4, 5
NO_MATCHING_SUBSCRIBERS = 0x10


class Packet(NamedTuple):
    """`body` is what follows the fixed header."""

    kind: int
    flags: int
    body: bytes


class Published(NamedTuple):
    """`mid` is None at QoS 0."""

    topic: str
    payload: bytes
    mid: int | None


def connect(client_id: str, version: int, *, clean: bool, keepalive_s: int, user: str | None = None, password: str | None = None) -> bytes:
    flags = (2 if clean else 0) | (0x80 if user is not None else 0) | (0x40 if password is not None else 0)
    head = _text("MQTT") + bytes([version, flags]) + keepalive_s.to_bytes(2)
    if version == V5:
        head += b"\x05\x11" + (0 if clean else 3600).to_bytes(4)  # session expiry interval
    names = [client_id, *(name for name in (user, password) if name is not None)]
    return packet(CONNECT, 0, head + b"".join(map(_text, names)))


def publish(topic: str, payload: bytes, mid: int, version: int, dup: bool = False) -> bytes:
    """At QoS 1."""
    return packet(PUBLISH, 0x0A if dup else 0x02, _text(topic) + mid.to_bytes(2) + (b"\0" if version == V5 else b"") + payload)


def subscribe(topic: str, mid: int, version: int) -> bytes:
    return packet(SUBSCRIBE, 0x02, mid.to_bytes(2) + (b"\0" if version == V5 else b"") + _text(topic) + b"\x01")


def puback(mid: int) -> bytes:
    return packet(PUBACK, 0, mid.to_bytes(2))


PING = bytes([PINGREQ << 4, 0])
GOODBYE = bytes([DISCONNECT << 4, 0])


def packet(kind: int, flags: int, body: bytes) -> bytes:
    length, left = b"", len(body)
    while True:
        left, digit = divmod(left, 128)[0], left % 128
        length += bytes([digit | (0x80 if left else 0)])
        if not left:
            return bytes([kind << 4 | flags]) + length + body


class Parser:
    """Whole packets out of a stream of bytes."""

    def __init__(self) -> None:
        self._waiting = bytearray()

    def feed(self, data: bytes) -> list[Packet]:
        self._waiting += data
        found, at, buffer = [], 0, self._waiting
        while True:
            header = self._header(at)
            if header is None:
                break
            begins, length = header
            if len(buffer) < begins + length:
                break
            found.append(Packet(buffer[at] >> 4, buffer[at] & 15, bytes(buffer[begins : begins + length])))
            at = begins + length
        del buffer[:at]
        return found

    def _header(self, at: int) -> tuple[int, int] | None:
        """Where the body begins and how long it is, once that can be read."""
        length, shift = 0, 0
        for place in range(at + 1, min(at + 5, len(self._waiting))):
            length |= (self._waiting[place] & 0x7F) << shift
            shift += 7
            if not self._waiting[place] & 0x80:
                return place + 1, length
        return None


def published(packet: Packet, version: int) -> Published:
    body = packet.body
    end = 2 + int.from_bytes(body[:2])
    topic, at, mid = body[2:end].decode("utf-8", "replace"), end, None
    if packet.flags & 0x06:
        mid, at = int.from_bytes(body[at : at + 2]), at + 2
    if version == V5:
        at += 1 + body[at]  # properties, which are always short here
    return Published(topic, body[at:], mid)


def acknowledged(packet: Packet) -> tuple[int, int]:
    """(packet id, reason) of a PUBACK; the reason is 0 where none is said."""
    return int.from_bytes(packet.body[:2]), packet.body[2] if len(packet.body) > 2 else 0


def accepted(packet: Packet) -> tuple[bool, int]:
    """(session present, code) of a CONNACK."""
    return bool(packet.body[0] & 1), packet.body[1]


def _text(text: str) -> bytes:
    raw = text.encode()
    return len(raw).to_bytes(2) + raw
