"""Another client comes to the broker under the worker's name: a broker of MQTT 5 says so as it hangs up.

Mosquitto 2.0 hangs up without a word, so the other end is played here, in bytes.
"""

import socket
import threading

from ingest.clock import WallClock
from ingest.mqtt import Receiver
from ingest.mqtt_client import Endpoint
from ingest.settings import Protocol
from schemas import topics
from tests.servers import LOOPBACK, wait_until

CONNACK = bytes([0x20, 3, 0, 0, 0])
SESSION_TAKEN_OVER = bytes([0xE0, 2, 0x8E, 0])
SUBSCRIBE = 0x82


def read_packet(connection: socket.socket) -> bytes:
    """The first byte and all that follows the length of a packet shorter than 16 KiB."""
    first, length = connection.recv(1)[0], connection.recv(1)[0]
    if length & 0x80:
        length = (length & 0x7F) + (connection.recv(1)[0] << 7)
    rest = b""
    while len(rest) < length:
        rest += connection.recv(length - len(rest))
    return bytes([first]) + rest


def grant(packet: bytes) -> bytes:
    codes = bytes([1] * len(topics.uplink_filters()))
    return bytes([0x90, 3 + len(codes)]) + packet[1:3] + b"\0" + codes


def test_a_worker_whose_place_was_taken_knows_it_and_one_that_was_cut_off_does_not_think_so() -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        endings = [b"", SESSION_TAKEN_OVER]

        def serve() -> None:
            for ending in endings:
                connection, _ = server.accept()
                with connection:
                    while (packet := read_packet(connection))[0] != SUBSCRIBE:
                        connection.sendall(CONNACK)
                    connection.sendall(grant(packet))
                    wait_until(lambda: receiver.link.connected, 10, "the worker to have subscribed")
                    connection.sendall(ending)
                wait_until(lambda: not receiver.link.connected, 10, "the worker to notice")
                seen.append(receiver.times_taken_over)

        seen: list[int] = []
        receiver = Receiver(
            Endpoint(LOOPBACK, server.getsockname()[1], "ingest-test", Protocol.V5), WallClock(), lambda: None, expects_session=False
        )
        other_end = threading.Thread(target=serve, daemon=True)
        other_end.start()
        receiver.start()
        try:
            other_end.join(20)
        finally:
            receiver.stop()
    assert seen == [0, 1]
