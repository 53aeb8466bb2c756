"""The broker, through paho-mqtt. The only importer of it on the line.

One thread makes every call into paho, through its external-loop interface. Nothing is
acknowledged by the library: the core hands back what is on disk, and each acknowledgement
carries the epoch of the connection that delivered it, for packet ids start again at 1 when a
session is lost and a stale acknowledgement would destroy another message.
"""

import os
import random
import select
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from ingest import failpoints
from ingest.clock import Clock
from ingest.errors import Mistake
from ingest.observe import CONNECTED, STALE_ACKS, log
from ingest.security import SecurityLog
from ingest.settings import Protocol
from schemas import topics
from schemas.security import SecurityKind
from schemas.topics import Stream

SESSION_EXPIRY_S = 604_800
READS_PER_TURN = 64
QUEUE_LIMIT = 5_000
OUTSTANDING_PUBLISHES = 500
OUTGOING_MOST = 10_000
PULSE_PREFIX = b'{"pulse":'
CANARY_PREFIX = b'{"model":"canary",'
"""How the bytes of `ingest.canary` begin, so that workers know each other's."""

OWN_PREFIXES = (PULSE_PREFIX, CANARY_PREFIX)
WORKER_PREFIX = "ingest-"

STALLED_S = 60.0
UNDISTURBED_S = 600.0
"""A session that was ours for so long was not taken in a quarrel with the last who took it."""
BRIEF_S, LONGEST_BRIEF_DELAY_S, QUARREL = 10.0, 5.0, 4
"""Not every broker says that somebody took the session (Mosquitto 2.0 just hangs up). After connections that lasted no
longer than this, one after another, the next waits, at most so long; so many in a row are told as a takeover."""

_OTHER_WORKERS = f"{topics.ROOT}/{WORKER_PREFIX}".encode()
_REFUSED = frozenset({4, 5, 0x86, 0x87, 0x8A, 0x8C})
_TAKEN_OVER = 0x8E
_TAKEN_OVER = 0x8E
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


@dataclass(frozen=True, slots=True)
class Endpoint:
    host: str
    port: int
    client_id: str
    protocol: Protocol = Protocol.AUTO
    username: str = ""
    password: str | None = None
    keepalive_s: int = 30
    receive_maximum: int = 1_000
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    exact_certificate: str | None = None
    """The one certificate that the broker must show; it is on this machine, and needs no name."""


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


class _Client(paho.Client):
    """Reads from the socket in large pieces. paho asks it for one to a few bytes at a time, four
    times a message, and each time gives up the interpreter lock to the core."""

    READ_BYTES = 65_536
    unread = b""
    _at = 0

    def _sock_recv(self, bufsize: int) -> bytes:
        if self._at >= len(self.unread):
            self.unread, self._at = b"", 0
            self.unread = super()._sock_recv(self.READ_BYTES)
        piece = self.unread[self._at : self._at + bufsize]
        self._at += len(piece)
        return piece

    def has_unread(self) -> bool:
        return self._at < len(self.unread)

    def forget_unread(self) -> None:
        """The connection has changed; what was read of the old one means nothing in the new."""
        self.unread, self._at = b"", 0


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
        self._outstanding: dict[int, int] = {}
        self.published: deque[int] = deque()
        self.held = False
        """Set by the core: nothing is taken for now. What the broker delivers then stays unacknowledged, and its own."""
        self._left_out = False
        self.link = Link()
        self.session_lost_ms: int | None = None
        self.times_taken_over = 0
        """How often another client came under this one's name. A broker tells it in MQTT 5 only."""

        self._subscribed_mid: int | None = None
        self._read_count = 0
        self._failures = 0
        self._refused = 0
        self._said_no = False
        self._taken_over = 0
        self._brief = 0
        self._connected_at = 0.0
        self._next_pulse = 0.0
        self._stopping = threading.Event()
        self._bell_r, self._bell_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else _pipe()
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
        self._ring()

    def publish(self, topic: str, payload: bytes, token: int | None = None) -> None:
        """Publish; with a `token` at QoS 1, and the token appears in `published` once the broker has it.

        Without one at QoS 0: for what is said again anyway, so that only so much of it waits for a broker that is away.
        """
        if token is None and len(self._outgoing) >= OUTGOING_MOST:
            return
        self._outgoing.append((token, topic, payload, 0 if token is None else 1))
        self._ring()

    def is_connected(self) -> bool:
        return self.link.connected

    def say(self, payload: bytes) -> None:
        """Publish on the worker's own topic, at QoS 1 as a device would; it comes back like a device's message."""
        self._outgoing.append((None, self._pulse_topic, payload, 1))
        self._ring()

    def stop(self, deadline_s: float = 5.0) -> None:
        """Send what is waiting, disconnect, end the thread."""
        self._stopping.set()
        self._ring()
        self._thread.join(deadline_s)

    # -- the thread -----------------------------------------------------------------------------

    def _guarded(self) -> None:
        try:
            self._run()
        except BaseException:
            log().exception("receiver_died")
            os._exit(70)

    def _run(self) -> None:
        poller = select.poll()
        poller.register(self._bell_r, select.POLLIN)
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
                if fd == self._bell_r:
                    _drain(self._bell_r)
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
        pulse_ms, canary = None, False
        now_ms = self._clock.now_ms()
        self._heard = time.monotonic()
        if payload.startswith(OWN_PREFIXES) and (topic == self._pulse_bytes or topic.startswith(_OTHER_WORKERS)):
            own = topic == self._pulse_bytes
            canary = own and payload.startswith(CANARY_PREFIX)
            pulse_ms = min(now_ms, _pulse_ms(payload)) if own and not canary else -1
            self.link.pulses = self.link.pulses or pulse_ms >= 0
        queue = self._queue
        if self.held and len(queue) >= QUEUE_LIMIT:
            self._left_out = True  # unacknowledged, so the broker delivers it again
            return
        queue.append(
            Delivery(self._epoch, message.mid, message.qos, now_ms, topic, payload, message.retain, pulse_ms, canary)
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
            token, topic, payload, qos = self._outgoing.popleft()
            info = self._client.publish(topic, payload, qos)
            if token is not None:
                self._outstanding[info.mid] = token

    def _pulse(self, now: float) -> None:
        if self.link.pulses and now - self._heard > STALLED_S:
            self._hang_up("nothing has come back for a minute, not even our own messages")
            return
        self._next_pulse = now + self._pulse_interval_s
        self._client.publish(self._pulse_topic, b'{"pulse":%d}' % self._clock.now_ms(), 1)

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

    def _make_client(self) -> _Client:
        at = self._at
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=at.client_id,
            clean_session=None if self._v5 else False,
            protocol=paho.MQTTv5 if self._v5 else paho.MQTTv311,
            manual_ack=True,
        )
        client.max_inflight_messages_set(OUTSTANDING_PUBLISHES + 100)
        if at.username:
            client.username_pw_set(at.username, at.password)
        if at.ca_file:
            try:
                client.tls_set(at.ca_file, at.cert_file, at.key_file, tls_version=ssl.PROTOCOL_TLS_CLIENT)
            except (OSError, ssl.SSLError) as error:
                raise Mistake(f"{at.ca_file}: cannot use the TLS files: {error}") from error
        if at.exact_certificate:
            client.tls_set_context(_trusting_only(at.exact_certificate))
        client.on_message = self._on_message
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        # With this set, paho leaves writing to the loop above instead of writing inside each call.
        client.on_socket_register_write = lambda *_: None
        return client

    def _connect(self) -> None:
        if self._failures or self._refused or self._taken_over or self._brief > 1:
            self._stopping.wait(self._delay_s())
            if self._stopping.is_set():
                return
        self._client.forget_unread()
        try:
            if self._v5:
                properties = Properties(PacketTypes.CONNECT)
                properties.SessionExpiryInterval = SESSION_EXPIRY_S
                properties.ReceiveMaximum = self._at.receive_maximum
                self._client.connect(
                    self._at.host, self._at.port, self._at.keepalive_s, clean_start=False, properties=properties
                )
            else:
                self._client.connect(self._at.host, self._at.port, self._at.keepalive_s)
        except (OSError, ValueError) as error:
            self._failures += 1
            self._brief = 0
            self._lost(f"cannot reach {self._at.host}:{self._at.port}: {error}")

    def _delay_s(self) -> float:
        """Quickly after a cut, slowly after a refusal: the broker will not change its mind soon. And slowly when
        somebody else took the session: two who take it from each other deliver nothing."""
        no = max(self._refused, self._taken_over)
        first, longest, times = (5.0, 300.0, no - 1) if no else (0.25, 30.0, self._failures)
        most = min(longest, first * 2 ** min(times, 7)) if no or self._failures else 0.0
        most = max(most, min(LONGEST_BRIEF_DELAY_S, 0.25 * 2 ** min(self._brief, 7)) if self._brief > 1 else 0.0)
        return most * random.uniform(0.5, 1.0)

    def _on_connect(self, client, userdata, flags, reason, properties) -> None:
        self._read_count += 1
        self._epoch += 1
        if reason.is_failure:
            code = reason.value
            if code in _WRONG_VERSION and self._v5 and self._at.protocol is Protocol.AUTO:
                self._fall_back()
                return
            self._failures += 1
            self._refused += code in _REFUSED
            self._said_no = True
            self._lost(f"refused by {self._at.host}:{self._at.port}: {reason}")
            return
        # At the very first connection there is no session yet, and none is missed.
        self.link.session_present = bool(flags.session_present) if self._expects_session else None
        if self._expects_session and not flags.session_present:
            self.session_lost_ms = self._clock.now_ms()
            log().warning("broker_session_lost", host=self._at.host, port=self._at.port)
        options = [(f, SubscribeOptions(qos=1, retainHandling=2)) if self._v5 else (f, 1) for f in topics.uplink_filters()]
        _, self._subscribed_mid = client.subscribe(options)

    def _fall_back(self) -> None:
        """The broker does not speak MQTT 5: go on with 3.1.1."""
        log().info("mqtt_fallback", protocol="3.1.1")
        self._v5 = False
        self._client = self._make_client()

    def _on_subscribe(self, client, userdata, mid, reasons, properties) -> None:
        self._read_count += 1
        if mid != self._subscribed_mid:
            return
        refused = [str(reason) for reason in reasons if reason.is_failure or reason.value != 1]
        if refused:
            self._refused += 1
            said = ", ".join(sorted(set(refused)))
            self._lost(f"subscription refused ({said}); the broker must grant QoS 1 on {topics.ROOT}/+/…", subscription=True)
            self._said_no = True  # the end of this connection is ours, and no news
            client.disconnect()
            return
        self._failures = self._refused = 0
        failpoints.reach("subscribed")
        self._connected_at = time.monotonic()
        self._expects_session = True
        self._next_pulse, self._heard = 0.0, time.monotonic()
        link = self.link
        link.connected, link.since_ms, link.pulses = True, self._clock.now_ms(), False
        link.protocol = "MQTT 5" if self._v5 else "MQTT 3.1.1"
        link.detail, link.subscription_refused = f"{link.protocol} at {self._at.host}:{self._at.port}", False
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
        if self.link.connected:
            lasted_s = time.monotonic() - self._connected_at
            self._taken_over = 0 if lasted_s > UNDISTURBED_S else self._taken_over
            self._brief = self._brief + 1 if lasted_s < BRIEF_S and not self._stopping.is_set() else 0
        if reason.value == _TAKEN_OVER:
            self._taken_over += 1
            self._note_takeover("another connection with the worker's name took its session at the broker")
        elif self._brief >= QUARREL:
            self._note_takeover("the broker lets this worker in and ends its connection, again and again: another may have its name")
        if reason.value in _REFUSED:
            self._refused += 1
        if reason.value == _TAKEN_OVER:
            self.times_taken_over += 1
        if not self.link.connected and not self._stopping.is_set():
            self._failures += 1
            if self._v5 and self._at.protocol is Protocol.AUTO and self._failures >= 2 and not reason.value & 0x80:
                self._fall_back()  # some 3.1.1 brokers just hang up on MQTT 5
        self._lost(f"connection to {self._at.host}:{self._at.port} lost: {reason}")

    def _note_takeover(self, detail: str) -> None:
        self._security.note(SecurityKind.TAKEOVER, self._clock.now_ms(), self._at.client_id, f"{self._at.host}:{self._at.port}", detail)

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
        token = self._outstanding.pop(mid, None)
        if token is not None:
            self.published.append(token)
            self._wake_core()

    def _ring(self) -> None:
        try:
            os.write(self._bell_w, b"\0")
        except BlockingIOError:
            pass


def _trusting_only(certificate: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(certificate)
    except (OSError, ssl.SSLError) as error:
        raise Mistake(f"{certificate}: cannot use this certificate: {error}") from error
    return context


def _pulse_ms(payload: bytes) -> int:
    digits = payload[len(PULSE_PREFIX) : -1]
    return int(digits) if digits.isdigit() and len(digits) <= 15 else -1


def _drain(fd: int) -> None:
    try:
        os.read(fd, 4096)
    except BlockingIOError:
        pass


def _pipe() -> tuple[int, int]:
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    return read, write
