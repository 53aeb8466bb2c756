"""What the receiver says to a broker, byte by byte: to one that answers as it is told.

A real broker chooses its packet ids and its moments itself; here they must be chosen.
"""

import socket
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, Self

import pytest

from ingest import mqtt
from ingest.clock import WallClock
from ingest.mqtt import OUTGOING_MOST, Delivery, Receiver
from ingest.mqtt_client import SESSION_EXPIRY_S, Endpoint
from ingest.settings import Protocol
from tests.servers import LOOPBACK, wait_until

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK = 1, 2, 3, 4, 8, 9
PATIENCE_S = 10.0
NO_PULSE_S = 3_600.0


class Packet(NamedTuple):
    kind: int
    flags: int
    body: bytes


class Connection:
    """The broker's end of one connection."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._link.settimeout(PATIENCE_S)
        self._unread = link.makefile("rb")
        self.acknowledged: list[int] = []
        """Packet ids of the PUBACKs so far, in their order."""

    def read(self) -> Packet:
        first = self._bytes(1)[0]
        length, shift = 0, 0
        while True:
            digit = self._bytes(1)[0]
            length, shift = length | (digit & 0x7F) << shift, shift + 7
            if digit < 0x80:
                break
        packet = Packet(first >> 4, first & 15, self._bytes(length))
        if packet.kind == PUBACK:
            self.acknowledged.append(int.from_bytes(packet.body[:2]))
        return packet

    def read_until(self, is_it: Callable[[Packet], bool]) -> Packet:
        while not is_it(packet := self.read()):
            pass
        return packet

    def _bytes(self, number: int) -> bytes:
        found = self._unread.read(number)
        assert len(found) == number, "the receiver has hung up"
        return found

    def send(self, kind: int, body: bytes, flags: int = 0) -> None:
        assert len(body) < 128
        self._link.sendall(bytes([kind << 4 | flags, len(body)]) + body)

    def deliver(self, mid: int, payload: bytes) -> None:
        """A message at QoS 1."""
        topic = b"mc/v1/example-1/current"
        self.send(PUBLISH, len(topic).to_bytes(2) + topic + mid.to_bytes(2) + b"\0" + payload, flags=0x02)

    def cut(self) -> None:
        self._unread.close()
        self._link.close()


class Broker:
    """Takes one connection after another, when it is asked to."""

    def __enter__(self) -> Self:
        self._door = socket.create_server((LOOPBACK, 0))
        self._door.settimeout(PATIENCE_S)
        self.port = self._door.getsockname()[1]
        self.connects: list[Packet] = []
        self.subscribes: list[Packet] = []
        self._links: list[Connection] = []
        return self

    def __exit__(self, *_: object) -> None:
        for link in self._links:
            link.cut()
        self._door.close()

    def connection(self, session_present: bool = True) -> Connection:
        """The receiver has connected, and has subscribed to everything."""
        link = Connection(self._door.accept()[0])
        self._links.append(link)
        self.connects.append(link.read_until(lambda packet: packet.kind == CONNECT))
        link.send(CONNACK, bytes([session_present, 0, 0]))
        self.subscribes.append(link.read_until(lambda packet: packet.kind == SUBSCRIBE))
        asked = _filters(self.subscribes[-1])
        link.send(SUBACK, self.subscribes[-1].body[:2] + b"\0" + bytes(options & 3 for options in asked.values()))
        return link


def _filters(subscribe: Packet) -> dict[str, int]:
    """Topic filter → its options, of which the lowest two bits are the QoS."""
    body, at, found = subscribe.body, 3 + subscribe.body[2], {}
    while at < len(body):
        end = at + 2 + int.from_bytes(body[at : at + 2])
        found[body[at + 2 : end].decode()] = body[end]
        at = end + 1
    return found


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker() as broker:
        yield broker


@pytest.fixture
def receiver(broker: Broker) -> Iterator[Receiver]:
    """A worker that has been connected in an earlier life."""
    endpoint = Endpoint(LOOPBACK, broker.port, "ingest-test", Protocol.V5)
    found = Receiver(endpoint, WallClock(), lambda: None, expects_session=True, pulse_interval_s=NO_PULSE_S)
    yield found
    found.stop()


def taken(receiver: Receiver, number: int) -> list[Delivery]:
    """The next messages, once they are there."""
    found: list[Delivery] = []
    wait_until(lambda: found.extend(receiver.take(number - len(found))) or len(found) == number, PATIENCE_S, f"{number} messages")
    return found


def all_said(receiver: Receiver, link: Connection, word: str) -> None:
    """What the receiver was given to say before this has arrived at the broker."""
    receiver.publish(f"mc/v1/example-1/{word}", b"{}")
    link.read_until(lambda packet: packet.kind == PUBLISH and packet.body[2:].startswith(f"mc/v1/example-1/{word}".encode()))


def test_messages_are_acknowledged_when_they_are_handed_back_and_in_the_order_of_their_arrival(broker: Broker, receiver: Receiver) -> None:
    receiver.start()
    link = broker.connection()
    for mid in (5, 3, 9, 4):
        link.deliver(mid, b"{}")
    deliveries = taken(receiver, 4)
    all_said(receiver, link, "ack")
    assert [] == link.acknowledged
    receiver.ack(deliveries)
    all_said(receiver, link, "alert")
    assert [5, 3, 9, 4] == link.acknowledged


def test_an_acknowledgement_of_a_connection_that_is_gone_is_not_sent_on_the_next(broker: Broker, receiver: Receiver) -> None:
    """The packet ids of a new session begin again: the number that the old message had is that of a new one."""
    receiver.start()
    first = broker.connection()
    first.deliver(1, b'"old"')
    (old,) = taken(receiver, 1)
    first.cut()
    second = broker.connection(session_present=False)
    second.deliver(1, b'"new"')
    (new,) = taken(receiver, 1)
    receiver.ack([old])
    all_said(receiver, second, "ack")
    assert [] == second.acknowledged
    receiver.ack([new])
    all_said(receiver, second, "alert")
    assert [1] == second.acknowledged
    assert (b'"old"', b'"new"') == (old.payload, new.payload)


def test_every_connection_asks_for_the_session_that_the_broker_keeps(broker: Broker, receiver: Receiver) -> None:
    receiver.start()
    for _ in range(3):
        broker.connection().cut()
    for connect in broker.connects:
        clean_start, properties = connect.body[7] & 0x02, connect.body[11:]
        assert not clean_start
        assert b"\x11" + SESSION_EXPIRY_S.to_bytes(4) in properties
    for subscribe in broker.subscribes:
        asked = _filters(subscribe)
        assert {1} == {options & 3 for options in asked.values()}
        assert {f"mc/v1/+/{stream}" for stream in ("current", "contact", "runtime", "health", "identity", "status")} == set(asked)


def test_a_session_that_the_broker_has_lost_is_noticed(broker: Broker, receiver: Receiver) -> None:
    receiver.start()
    link = broker.connection(session_present=True)
    wait_until(lambda: receiver.link.connected, PATIENCE_S, "the connection")
    assert (True, None) == (receiver.link.session_present, receiver.session_lost_ms)
    link.cut()
    broker.connection(session_present=False)
    wait_until(lambda: receiver.session_lost_ms is not None, PATIENCE_S, "the loss to be noticed")
    assert receiver.link.session_present is False


def test_what_is_said_while_the_broker_is_away_is_told_when_it_is_back(broker: Broker, receiver: Receiver) -> None:
    receiver.publish("mc/v1/example-1/alert", b'{"n":1}', token=77)
    receiver.start()
    link = broker.connection()
    said = link.read_until(lambda packet: packet.kind == PUBLISH and b"/alert" in packet.body)
    qos, at = said.flags >> 1 & 3, 2 + int.from_bytes(said.body[:2])
    assert (1, b'{"n":1}') == (qos, said.body[at + 3 :])
    assert not receiver.published
    link.send(PUBACK, said.body[at : at + 2])
    wait_until(lambda: list(receiver.published) == [77], PATIENCE_S, "the token of what the broker has")


def test_of_what_is_said_again_anyway_only_so_much_waits_for_a_broker_that_is_away(broker: Broker, receiver: Receiver) -> None:
    for n in range(OUTGOING_MOST + 5):
        receiver.publish("mc/v1/example-1/ack", b"%d" % n)
    receiver.publish("mc/v1/example-1/alert", b"{}", token=77)
    receiver.start()
    link = broker.connection()
    acks: list[int] = []

    def is_alert(packet: Packet) -> bool:
        if packet.kind == PUBLISH and b"/ack" in packet.body[:22]:
            acks.append(int(packet.body[packet.body.index(b"\0", 2) + 1 :]))
        return packet.kind == PUBLISH and b"/alert" in packet.body[:24]

    link.read_until(is_alert)
    assert list(range(OUTGOING_MOST)) == acks


def test_connections_that_last_briefly_one_after_another_make_the_next_one_wait(broker: Broker, receiver: Receiver) -> None:
    """Mosquitto 2.0 takes a session away without a word; two workers would take it from each other for ever."""
    receiver.start()
    ended = []
    for _ in range(4):
        link = broker.connection()
        wait_until(lambda: receiver.link.connected, PATIENCE_S, "the connection")
        ended.append(time.monotonic())
        link.cut()
    assert ended[3] - ended[2] >= 1.0


def an_alert(packet: Packet) -> bool:
    return packet.kind == PUBLISH and b"/alert" in packet.body[:24]


def mid_of(publish: Packet) -> bytes:
    at = 2 + int.from_bytes(publish.body[:2])
    return publish.body[at : at + 2]


def test_an_alert_that_the_broker_does_not_take_is_offered_again(
    broker: Broker, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rights may be wrong today: not authorized, quota exceeded."""
    monkeypatch.setattr(mqtt, "TURNED_AWAY_S", 0.2)
    receiver.start()
    link = broker.connection()
    receiver.publish("mc/v1/example-1/alert", b'{"n":1}', token=77)
    for reason in (0x87, 0x97):
        link.send(PUBACK, mid_of(link.read_until(an_alert)) + bytes([reason, 0]))
    again = link.read_until(an_alert)
    assert not receiver.published
    assert again.body.endswith(b'{"n":1}')
    link.send(PUBACK, mid_of(again))
    wait_until(lambda: list(receiver.published) == [77], PATIENCE_S, "the token of what the broker has")


def test_an_alert_under_way_is_said_again_to_a_broker_that_only_speaks_an_older_version(broker: Broker) -> None:
    endpoint = Endpoint(LOOPBACK, broker.port, "ingest-test", Protocol.AUTO)
    receiver = Receiver(endpoint, WallClock(), lambda: None, expects_session=True, pulse_interval_s=NO_PULSE_S)
    receiver.publish("mc/v1/example-1/alert", b'{"n":1}', token=77)
    receiver.start()
    first = broker.connection()
    first.read_until(an_alert)
    first.cut()
    refusing = Connection(broker._door.accept()[0])
    refusing.read_until(lambda packet: packet.kind == CONNECT)
    refusing.send(CONNACK, bytes([0, 0x84, 0]))
    refusing.cut()
    older = Connection(broker._door.accept()[0])
    assert older.read_until(lambda packet: packet.kind == CONNECT).body[6] == 4
    older.send(CONNACK, bytes([1, 0]))
    subscribe = older.read_until(lambda packet: packet.kind == SUBSCRIBE)
    older.send(SUBACK, subscribe.body[:2] + b"\1" * 6)
    receiver.publish("mc/v1/example-2/alert", b'{"n":2}', token=78)
    said = {}
    while len(said) < 2:
        publish = older.read_until(an_alert)
        said[publish.body[-7:]] = mid_of(publish)
    for mid in said.values():
        older.send(PUBACK, mid)
    wait_until(lambda: sorted(receiver.published) == [77, 78], PATIENCE_S, "both tokens")
    older.cut()
    receiver.stop()
