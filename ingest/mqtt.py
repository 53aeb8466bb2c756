"""The broker, through paho-mqtt: what comes from it, what is said to it, and when it is tried again.

One thread makes every call into paho, through its external-loop interface. Nothing is
acknowledged by the library: the core hands back what is on disk, and each acknowledgement
carries the epoch of the connection that delivered it, for packet ids start again at 1 when a
session is lost and a stale acknowledgement would destroy another message.
"""

import os
import random
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import paho.mqtt.client as paho

from ingest import failpoints
from ingest.bell import Bell
from ingest.clock import Clock
from ingest.mqtt_client import Client, Endpoint
from ingest.observe import CONNECTED, STALE_ACKS, log
from ingest.patience import Patience
from ingest.pulse import CANARY_PREFIX, OWN_PREFIXES, TOPICS_OF_WORKERS, pulse, pulse_ms
from ingest.security import SecurityLog
from ingest.settings import Protocol
from schemas import topics
from schemas.security import SecurityKind
from schemas.topics import Stream

READS_PER_TURN = 64
QUEUE_LIMIT = 5_000
OUTSTANDING_PUBLISHES = 500
OUTGOING_MOST = 10_000
STALLED_S = 60.0
TURNED_AWAY_S = 30.0
"""After so long the broker is offered again what it would not take; the rights of this worker may be mended by then."""

_WRONG_VERSION = frozenset({1, 0x84})


class Delivery(NamedTuple):
    """A message as the broker handed it over. A pulse is our own, come back through the broker, and so is a canary."""

    epoch: int
    mid: int
    qos: int
    received_ms: int
    topic: bytes
    payload: bytes
    retained: bool
    pulse_ms: int | None = None
    canary: bool = False


@dataclass(slots=True)
class Link:
    """The state of the connection, for people. `observed` tells whether pulses come back."""

    connected: bool = False
    since_ms: int = 0
    session_present: bool | None = None
    protocol: str = ""
    detail: str = "not connected yet"
    pulses: bool = False
    subscription_refused: bool = False


class Receiver:
    """Delivers messages to `take`, acknowledges through `ack`, publishes through `publish`."""

    def __init__(
        self,
        endpoint: Endpoint,
        clock: Clock,
        wake: Callable[[], None],
        expects_session: bool,
        pulse_interval_s: float = 1.0,
        security: SecurityLog | None = None,
    ) -> None:
        self._at = endpoint
        self._security = security or SecurityLog()
        self._clock = clock
        self._wake_core = wake
        self._expects_session = expects_session
        self._pulse_interval_s = pulse_interval_s
        self._pulse_topic = topics.uplink(endpoint.client_id, Stream.RUNTIME)
        self._pulse_bytes = self._pulse_topic.encode()
        self._heard = 0.0
        self._epoch = 0
        self._queue: deque[Delivery] = deque()
        self._acks: deque[tuple[int, int]] = deque()
        self._outgoing: deque[tuple[int | None, str, bytes, int]] = deque()
        self._outstanding: dict[int, tuple[int, str, bytes, int]] = {}
        self._turned_away: deque[tuple[int, str, bytes, int]] = deque()
        self._offer_again_at = 0.0
        self.published: deque[int] = deque()
        self.held = False
        """Set by the core: nothing is taken for now. What the broker delivers then stays unacknowledged, and its own."""
        self._left_out = False
        self.link = Link()
        self.session_lost_ms: int | None = None
        self._patience = Patience()
        self._subscribed_mid: int | None = None
        self._read_count = 0
        self._said_no = False
        self._connected_at = 0.0
        self._next_pulse = 0.0
        self._stopping = threading.Event()
        self._bell = Bell()
        self._v5 = endpoint.protocol is not Protocol.V311
        self._client = self._make_client()
        self._thread = threading.Thread(target=self._guarded, name="mqtt", daemon=True)

    # -- for the core ---------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def take(self, most: int) -> list[Delivery]:
        queue = self._queue
        return [queue.popleft() for _ in range(min(most, len(queue)))]

    def arrived(self) -> int:
        """How many deliveries there are to take."""
        return len(self._queue)

    def ack(self, deliveries: Iterable[Delivery]) -> None:
        """These are on disk: tell the broker, in the order they came."""
        self._acks.extend((d.epoch, d.mid) for d in deliveries if d.qos == 1)
        self._bell.ring()

    def publish(self, topic: str, payload: bytes, token: int | None = None) -> None:
        """Publish; with a `token` at QoS 1, and the token appears in `published` once the broker has it.

        Without one at QoS 0: for what is said again anyway, so that only so much of it waits for a broker that is away.
        """
        if token is None and len(self._outgoing) >= OUTGOING_MOST:
            return
        self._outgoing.append((token, topic, payload, 0 if token is None else 1))
        self._bell.ring()

    def is_connected(self) -> bool:
        return self.link.connected

    @property
    def times_taken_over(self) -> int:
        """How often another client came under this one's name. A broker tells it in MQTT 5 only."""
        return self._patience.times_taken_over

    def say(self, payload: bytes) -> None:
        """Publish on the worker's own topic, at QoS 1 as a device would; it comes back like a device's message."""
        self._outgoing.append((None, self._pulse_topic, payload, 1))
        self._bell.ring()

    def stop(self, deadline_s: float = 5.0) -> None:
        """Send what is waiting, disconnect, end the thread."""
        self._stopping.set()
        self._bell.ring()
        self._thread.join(deadline_s)

    # -- the thread -----------------------------------------------------------------------------

    def _guarded(self) -> None:
        try:
            self._run()
        except BaseException:
            log().exception("receiver_died")
            os._exit(70)

    def _run(self) -> None:
        poller, bell = select.poll(), self._bell.fileno()
        poller.register(bell, select.POLLIN)
        watched: int | None = None
        next_misc = 0.0
        while not self._stopping.is_set():
            sock = self._client.socket()
            if sock is None:
                if watched is not None:
                    poller.unregister(watched)
                    watched = None
                self._connect()
                continue
            if watched != sock.fileno():
                if watched is not None:
                    poller.unregister(watched)
                watched = sock.fileno()
            room = self.held or len(self._queue) < QUEUE_LIMIT
            if self._left_out and not self.held:
                self._left_out = False
                self._hang_up("there is room again for what could not be kept in memory; the broker has it")
            poller.register(
                watched, (select.POLLIN if room else 0) | (select.POLLOUT if self._client.want_write() else 0)
            )
            unread = room and self._client.has_unread()
            if unread:
                self._read()
            for fd, event in poller.poll(0 if unread else self._wait_ms() if room else 5):
                if fd == bell:
                    self._bell.hush()
                elif event & (select.POLLIN | select.POLLHUP | select.POLLERR):
                    self._read()
            acking = bool(self._acks)
            self._send_acks()
            self._send_outgoing()
            now = time.monotonic()
            if self.held:  # nothing comes back while nothing is acknowledged
                self._heard = now
            elif self.link.connected and now >= self._next_pulse:
                self._pulse(now)
            if self._client.want_write():
                self._client.loop_write()
                if acking:
                    failpoints.reach("acks-sent")
            if now >= next_misc:
                self._client.loop_misc()
                next_misc = now + 0.5
                self._offer_again(now)
        self._say_goodbye()

    def _wait_ms(self) -> int:
        pulse_ms = int((self._next_pulse - time.monotonic()) * 1000) + 1 if self.link.connected else 500
        return max(0, min(500, pulse_ms))

    def _read(self) -> None:
        """Read packets until none is left; paho reads one at a call."""
        for _ in range(READS_PER_TURN):
            before = self._read_count
            self._client.loop_read()
            if self._read_count == before or self._client.socket() is None:
                return

    def _on_message(self, client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        self._read_count += 1
        topic, payload = message._topic, message.payload
        sent_ms, canary = None, False
        now_ms = self._clock.now_ms()
        self._heard = time.monotonic()
        if payload.startswith(OWN_PREFIXES) and (topic == self._pulse_bytes or topic.startswith(TOPICS_OF_WORKERS)):
            own = topic == self._pulse_bytes
            canary = own and payload.startswith(CANARY_PREFIX)
            sent_ms = min(now_ms, pulse_ms(payload)) if own and not canary else -1
            self.link.pulses = self.link.pulses or sent_ms >= 0
        queue = self._queue
        if self.held and len(queue) >= QUEUE_LIMIT:
            self._left_out = True  # unacknowledged, so the broker delivers it again
            return
        queue.append(
            Delivery(self._epoch, message.mid, message.qos, now_ms, topic, payload, message.retain, sent_ms, canary)
        )
        if len(queue) == 1:
            self._wake_core()

    def _send_acks(self) -> None:
        acks = self._acks
        if acks:
            failpoints.reach("acks-unsent")
        while acks:
            epoch, mid = acks.popleft()
            if epoch == self._epoch:
                self._client.ack(mid, 1)
            else:
                STALE_ACKS.inc()

    def _send_outgoing(self) -> None:
        while self._outgoing and self.link.connected and len(self._outstanding) < OUTSTANDING_PUBLISHES:
            token, topic, payload, qos = said = self._outgoing.popleft()
            info = self._client.publish(topic, payload, qos)
            if token is not None:
                self._outstanding[info.mid] = said

    def _offer_again(self, now: float) -> None:
        if self._turned_away and now >= self._offer_again_at:
            self._outgoing.extend(self._turned_away)
            self._turned_away.clear()

    def _pulse(self, now: float) -> None:
        if self.link.pulses and now - self._heard > STALLED_S:
            self._hang_up("nothing has come back for a minute, not even our own messages")
            return
        self._next_pulse = now + self._pulse_interval_s
        self._client.publish(self._pulse_topic, pulse(self._clock.now_ms()), 1)

    def _hang_up(self, why: str) -> None:
        """A connection that looks alive and delivers nothing: begin a new one."""
        log().warning("broker_stalled", detail=why)
        self._heard = time.monotonic()
        self._client.disconnect()
        self._client.loop_write()

    def _say_goodbye(self) -> None:
        deadline = time.monotonic() + 2.0
        while self.link.connected and time.monotonic() < deadline:
            self._send_acks()
            self._send_outgoing()
            if self._client.want_write():
                self._client.loop_write()
            elif not self._acks and not self._outgoing and not self._outstanding:
                break
            sock = self._client.socket()
            if sock is None:
                break
            poller = select.poll()
            poller.register(sock, select.POLLIN)
            if poller.poll(20):
                self._client.loop_read()
        if self.link.connected:
            self._client.disconnect()
            self._client.loop_write()

    # -- connecting -----------------------------------------------------------------------------

    def _make_client(self) -> Client:
        client = Client(self._at, self._v5, OUTSTANDING_PUBLISHES + 100)
        client.on_message = self._on_message
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        return client

    def _connect(self) -> None:
        delay_s = self._patience.delay_s()
        if delay_s and self._stopping.wait(delay_s * random.uniform(0.5, 1.0)):
            return
        try:
            self._client.begin()
        except (OSError, ValueError) as error:
            self._patience.unreachable()
            self._lost(f"cannot reach {self._at.place}: {error}")

    def _on_connect(self, client, userdata, flags, reason, properties) -> None:
        self._read_count += 1
        self._epoch += 1
        if reason.is_failure:
            code = reason.value
            if code in _WRONG_VERSION and self._v5 and self._at.protocol is Protocol.AUTO:
                self._fall_back()
                return
            self._patience.refused(code)
            self._said_no = True
            self._lost(f"refused by {self._at.place}: {reason}")
            return
        # At the very first connection there is no session yet, and none is missed.
        self.link.session_present = bool(flags.session_present) if self._expects_session else None
        if self._expects_session and not flags.session_present:
            self.session_lost_ms = self._clock.now_ms()
            log().warning("broker_session_lost", host=self._at.host, port=self._at.port)
        self._subscribed_mid = client.subscribe_to_devices()

    def _fall_back(self) -> None:
        """The broker does not speak MQTT 5: go on with 3.1.1."""
        log().info("mqtt_fallback", protocol="3.1.1")
        self._v5 = False
        self._client = self._make_client()
        self._outgoing.extendleft(reversed(self._outstanding.values()))  # the client before has taken them with it
        self._outstanding.clear()

    def _on_subscribe(self, client, userdata, mid, reasons, properties) -> None:
        self._read_count += 1
        if mid != self._subscribed_mid:
            return
        refused = [str(reason) for reason in reasons if reason.is_failure or reason.value != 1]
        if refused:
            self._patience.not_granted()
            said = ", ".join(sorted(set(refused)))
            self._lost(f"subscription refused ({said}); the broker must grant QoS 1 on {topics.ROOT}/+/…", subscription=True)
            self._said_no = True  # the end of this connection is ours, and no news
            client.disconnect()
            return
        self._patience.subscribed()
        failpoints.reach("subscribed")
        self._connected_at = time.monotonic()
        self._expects_session = True
        self._next_pulse, self._heard = 0.0, time.monotonic()
        link = self.link
        link.connected, link.since_ms, link.pulses = True, self._clock.now_ms(), False
        link.protocol = "MQTT 5" if self._v5 else "MQTT 3.1.1"
        link.detail, link.subscription_refused = f"{link.protocol} at {self._at.place}", False
        CONNECTED.set(1)
        log().info("broker_connected", detail=link.detail, session_present=link.session_present)
        self._wake_core()

    def _on_disconnect(self, client, userdata, flags, reason, properties) -> None:
        self._epoch += 1
        if client is not self._client:
            return
        if self._said_no:  # it hangs up after refusing, which has been noted
            self._said_no = False
            return
        lasted_s = time.monotonic() - self._connected_at if self.link.connected else None
        stopping = self._stopping.is_set()
        if taken_over := self._patience.ended(reason.value, lasted_s, stopping):
            self._security.note(SecurityKind.TAKEOVER, self._clock.now_ms(), self._at.client_id, self._at.place, taken_over)
        hung_up = lasted_s is None and not stopping and not reason.value & 0x80
        if hung_up and self._v5 and self._at.protocol is Protocol.AUTO and self._patience.failures >= 2:
            self._fall_back()  # some 3.1.1 brokers just hang up on MQTT 5
        self._lost(f"connection to {self._at.place} lost: {reason}")

    def _lost(self, detail: str, subscription: bool = False) -> None:
        if self.link.connected or self.link.detail != detail:
            log().warning("broker_disconnected", detail=detail)
        if self.link.connected or not self.link.since_ms:
            self.link.since_ms = self._clock.now_ms()
        self.link.connected, self.link.detail, self.link.subscription_refused = False, detail, subscription
        CONNECTED.set(0)
        self._wake_core()

    def _on_publish(self, client, userdata, mid, reason, properties) -> None:
        self._read_count += 1
        said = self._outstanding.pop(mid, None)
        if said is None:
            return
        if reason.is_failure:
            if not self._turned_away:
                log().error("publish_refused", topic=said[1], detail=f"{reason}; the broker must let this worker publish {topics.ROOT}/+/alert")
                self._offer_again_at = time.monotonic() + TURNED_AWAY_S
            self._turned_away.append(said)
            return
        self.published.append(said[0])
        self._wake_core()
