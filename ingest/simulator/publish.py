"""The reference client of the contract: one MQTT connection per device, all driven by one thread.

A message is kept until the fleet's *durable ack* covers it. A broker's PUBACK only opens the
window for the next one: brokers lose acknowledged messages, and the device is the last to have a copy.
"""

import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from pydantic import ValidationError

from ingest.simulator.buffer import Counts, Frontier, Held, Link
from ingest.simulator.envelope import Message
from schemas.messages import DurableAck
from schemas.topics import Stream, durable_ack, uplink

WINDOW = 20
"""Messages of a device that may wait for a PUBACK at once."""

REFUSED_AGAIN_S = 1.0
PUBACK_PATIENCE_S = 20.0
"""A connection that owes a PUBACK for so long is given up: MQTT allows to send a message again only on the next one."""
KEEPALIVE_S = 60
_NO_MATCHING_SUBSCRIBERS = 0x10


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the broker is. `protocol` is paho's MQTTv311 or MQTTv5."""

    host: str
    port: int
    protocol: int


class Uplinks:
    """All connections of a fleet. Call `turn` often; it never waits longer than it is told."""

    def __init__(self, endpoint: Endpoint, announce: Callable[[Link, Message, Held], None],
                 monotonic_s: Callable[[], float] = time.monotonic) -> None:  # fmt: skip
        """`announce` is told that a device is connected and its birth is due."""
        self.counts = Counts()
        self.on_broker = Frontier(lambda held: held.on_broker or held.durable)
        self.durable = Frontier(lambda held: held.durable)
        self._endpoint = endpoint
        self._announce = announce
        self._now_s = monotonic_s
        self._selector = selectors.DefaultSelector()
        self._links: dict[str, Link] = {}
        self._writers: dict[str, Link] = {}
        self._pumped: dict[str, Link] = {}
        self._later: list[tuple[float, int, Link, Held]] = []
        self._later_count = 0
        self._retry_s = 0.0
        self._backoff_s = 0.1
        self._chores_s = 0.0
        self._leaving = False

    # -- what the simulation asks for --------------------------------------------------------

    def add(self, link: Link) -> None:
        link.client = self._client(link)
        self._prepare(link)
        self._links[link.device_id] = link

    def restart(self, link: Link, boot_id: int) -> None:
        """The device has restarted: its phone connects again, with a birth and a will of the new boot."""
        if link.born is not None:  # a birth that nobody has heard yet is none any more
            link.boots[link.boot_id].pop(link.born[1].seq)
        link.boot_id = boot_id
        self._prepare(link)
        if link.connected:
            link.connected, link.restarting = False, True
            link.client.disconnect()

    def publish(self, link: Link, held: Held, due_ms: int) -> bool:
        """Hand over a message whose moment has come; False if it only repeats an earlier one."""
        first = held.due_ms == 0
        if first:
            held.due_ms = due_ms
            self.on_broker.add(held)
            self.durable.add(held)
            link.enqueue(held)
        else:
            # The path repeats it, whatever the device has heard since.
            self.counts.resent += 1
            link.ready.append(Held(held.seq, held.topic, held.payload, due_ms))
        self._pumped[link.device_id] = link
        return first

    def turn(self, timeout_s: float) -> None:
        now_s = self._now_s()
        if now_s >= self._chores_s:
            self._chores_s = now_s + 0.1
            self._chores(now_s)
        while self._later and self._later[0][0] <= now_s:
            _, _, link, held = heappop(self._later)
            self._again(link, held)
        for link in list(self._pumped.values()):
            self._pump(link, now_s)
        self._write()
        for key, _ in self._selector.select(timeout_s):
            key.data.client.loop_read()
        self._write()

    @property
    def connected(self) -> int:
        return sum(link.connected for link in self._links.values())

    @property
    def unacked(self) -> int:
        return sum(link.unacked for link in self._links.values())

    def leave(self) -> None:
        """DISCONNECT politely, so that no last will is sent."""
        self._leaving = True
        for link in self._links.values():
            if link.connected:
                link.client.disconnect()
        deadline_s = self._now_s() + 1.0
        while self._writers and self._now_s() < deadline_s:
            self._write()
        self._selector.close()

    # -- sending ----------------------------------------------------------------------------

    def _pump(self, link: Link, now_s: float) -> None:
        while link.connected and link.ready and len(link.awaiting) < WINDOW:
            held = link.ready.popleft()
            held.queued = False
            if held.durable:
                continue
            held.on_broker = held.missing = False
            held.sent_s = now_s
            held.sendings += 1
            info = link.client.publish(held.topic, held.payload, qos=1)
            link.awaiting[info.mid] = held
            self.counts.published += 1
        if not link.ready or not link.connected:
            self._pumped.pop(link.device_id, None)

    def _again(self, link: Link, held: Held) -> None:
        if not held.durable and not held.queued:
            self.counts.resent += 1
            link.enqueue(held)
            self._pumped[link.device_id] = link

    def _write(self) -> None:
        for link in list(self._writers.values()):
            link.client.loop_write()

    def _chores(self, now_s: float) -> None:
        for link in self._links.values():
            if link.connected:
                for held in list(link.overdue(now_s)):
                    self._again(link, held)
                if link.owed_since_s() <= now_s - PUBACK_PATIENCE_S:
                    self.counts.stalled += 1
                    link.client.disconnect()
            if link.client.socket() is not None:
                if now_s >= link.misc_s:
                    link.misc_s = now_s + 1.0
                    link.client.loop_misc()
            elif not self._leaving and now_s >= max(link.retry_s, self._retry_s):
                self._connect(link, now_s)

    # -- connections ------------------------------------------------------------------------

    def _client(self, link: Link) -> paho.Client:
        v5 = self._endpoint.protocol == paho.MQTTv5
        client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id=link.device_id, userdata=link,
            protocol=self._endpoint.protocol, clean_session=None if v5 else False,
        )  # fmt: skip
        client.username_pw_set(link.device_id, link.password)
        client.max_inflight_messages_set(WINDOW)
        client.connect_timeout = 2.0
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_socket_open = self._on_socket_open
        client.on_socket_close = self._on_socket_close
        # With these set, paho never writes from within publish(): the loop here does.
        client.on_socket_register_write = lambda c, u, s: self._writers.__setitem__(u.device_id, u)
        client.on_socket_unregister_write = lambda c, u, s: self._writers.pop(u.device_id, None)
        return client

    def _connect(self, link: Link, now_s: float) -> None:
        """One attempt. A broker that is away is away for all: the next attempt of any device waits."""
        if link.born is None:
            self._prepare(link)
        v5 = self._endpoint.protocol == paho.MQTTv5
        properties = None
        if v5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 3600
        try:
            link.client.connect(
                self._endpoint.host, self._endpoint.port, keepalive=KEEPALIVE_S,
                clean_start=False if v5 else paho.MQTT_CLEAN_START_FIRST_ONLY, properties=properties,
            )  # fmt: skip
        except OSError as error:
            self.counts.refusal = f"cannot reach {self._endpoint.host}:{self._endpoint.port}: {error}"
            self._retry_s = now_s + self._backoff_s
            self._backoff_s = min(self._backoff_s * 2, 1.0)
        else:
            self._backoff_s = 0.1
            link.retry_s = now_s + 1.0

    def _prepare(self, link: Link) -> None:
        """A will must be set before the connection that it belongs to, so the birth is made first."""
        birth, will = link.birth(link.oldest_seq)
        link.born = (birth, link.hold(birth))
        link.client.will_set(uplink(link.device_id, Stream.STATUS), will, qos=1)

    def _on_socket_open(self, client: paho.Client, link: Link, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(sock, selectors.EVENT_READ, link)

    def _on_socket_close(self, client: paho.Client, link: Link, sock: socket.socket) -> None:
        self._selector.unregister(sock)
        self._writers.pop(link.device_id, None)

    def _on_connect(self, client: paho.Client, link: Link, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self.counts.refusal = f"{link.device_id}: {reason}"
            return
        self.counts.connects += 1
        link.connected = True
        for held in link.awaiting.values():  # paho sends these again by itself
            held.sent_s = self._now_s()
        client.subscribe(durable_ack(link.device_id), qos=1)
        self._pumped[link.device_id] = link
        link.ask_again(self._now_s())
        if link.born is not None:
            self._announce(link, *link.born)
            link.born = None

    def _on_disconnect(self, client: paho.Client, link: Link, flags: Any, reason: Any, properties: Any) -> None:
        link.connected = False
        link.retry_s = 0.0 if link.restarting else self._now_s() + 0.2
        link.restarting = False

    # -- acknowledgements -------------------------------------------------------------------

    def _on_publish(self, client: paho.Client, link: Link, mid: int, reason: Any, properties: Any) -> None:
        held = link.awaiting.pop(mid, None)
        self._pumped[link.device_id] = link
        if held is None:
            return
        if reason.value == _NO_MATCHING_SUBSCRIBERS or reason.value >= 0x80:
            self.counts.refused_pubacks += 1
            self._later_count += 1
            heappush(self._later, (self._now_s() + REFUSED_AGAIN_S, self._later_count, link, held))
        else:
            held.on_broker = True

    def _on_message(self, client: paho.Client, link: Link, message: paho.MQTTMessage) -> None:
        try:
            ack = DurableAck.model_validate_json(message.payload)
        except ValidationError:
            return
        self.counts.acks += 1
        link.cover(ack, self.counts)
