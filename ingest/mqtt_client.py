"""The paho client that the receiver drives: how it connects, is trusted, subscribes and reads."""

import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from ingest.errors import Mistake
from ingest.settings import Protocol
from schemas import topics

SESSION_EXPIRY_S = 604_800


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

    @property
    def place(self) -> str:
        return f"{self.host}:{self.port}"


class Client(paho.Client):
    """One client speaks one version of MQTT. It reads from the socket in large pieces: paho asks it for one to a few bytes
    at a time, four times a message, and each time gives up the interpreter lock to the core."""

    READ_BYTES = 65_536
    unread = b""
    _at = 0

    def __init__(self, endpoint: Endpoint, v5: bool, most_outstanding: int) -> None:
        """Files for TLS that cannot be used are a Mistake."""
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=endpoint.client_id,
            clean_session=None if v5 else False,
            protocol=paho.MQTTv5 if v5 else paho.MQTTv311,
            manual_ack=True,
        )
        self.endpoint, self.v5 = endpoint, v5
        self.max_inflight_messages_set(most_outstanding)
        if endpoint.username:
            self.username_pw_set(endpoint.username, endpoint.password)
        if endpoint.ca_file:
            try:
                self.tls_set(endpoint.ca_file, endpoint.cert_file, endpoint.key_file, tls_version=ssl.PROTOCOL_TLS_CLIENT)
            except (OSError, ssl.SSLError) as error:
                raise Mistake(f"{endpoint.ca_file}: cannot use the TLS files: {error}") from error
        if endpoint.exact_certificate:
            self.tls_set_context(_trusting_only(endpoint.exact_certificate))
        # With this set, paho leaves writing to the caller's loop instead of writing inside each call.
        self.on_socket_register_write = lambda *_: None

    def begin(self) -> None:
        """Connect to the session that the broker keeps; OSError or ValueError where it cannot be reached."""
        at = self.endpoint
        self.unread, self._at = b"", 0  # what was read of the old connection means nothing in the new
        if self.v5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = SESSION_EXPIRY_S
            properties.ReceiveMaximum = at.receive_maximum
            self.connect(at.host, at.port, at.keepalive_s, clean_start=False, properties=properties)
        else:
            self.connect(at.host, at.port, at.keepalive_s)
        # An alert that follows an acknowledgement would else wait for the broker's system to acknowledge that: 40 ms.
        self.socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def loop_write(self) -> paho.MQTTErrorCode:
        """All that waits to be written, in few segments: acknowledgements are four bytes each."""
        to = self.socket()
        if to is None or not hasattr(socket, "TCP_CORK"):
            return super().loop_write()
        to.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        try:
            return super().loop_write()
        finally:
            with suppress(OSError):  # it may have been closed
                to.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)

    def subscribe_to_devices(self) -> int | None:
        """All that devices say, at QoS 1 and without what is retained; returns the packet id of the request."""
        options = [(f, SubscribeOptions(qos=1, retainHandling=2)) if self.v5 else (f, 1) for f in topics.uplink_filters()]
        return self.subscribe(options)[1]

    def _sock_recv(self, bufsize: int) -> bytes:
        if self._at >= len(self.unread):
            self.unread, self._at = b"", 0
            self.unread = super()._sock_recv(self.READ_BYTES)
        piece = self.unread[self._at : self._at + bufsize]
        self._at += len(piece)
        return piece

    def has_unread(self) -> bool:
        return self._at < len(self.unread)


def _trusting_only(certificate: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(certificate)
    except (OSError, ssl.SSLError) as error:
        raise Mistake(f"{certificate}: cannot use this certificate: {error}") from error
    return context
