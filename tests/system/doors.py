"""Whoever wants to come in: CONNECT packets by hand, from any loopback address, and what the worker has noted of it."""

import socket
import sqlite3
import ssl
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.servers import LOOPBACK

ACCEPTED, NOT_AUTHORIZED = 0, 5


def field(text: bytes) -> bytes:
    return struct.pack(">H", len(text)) + text


def packet(kind: int, body: bytes) -> bytes:
    length, rest = b"", len(body)
    while True:
        rest, digit = divmod(rest, 128)[0], rest % 128
        length += bytes([digit | (128 if rest else 0)])
        if not rest:
            return bytes([kind]) + length + body


def connect_packet(client_id: str, user: str | None, password: str | None, *, clean: bool = False) -> bytes:
    flags = (0x80 if user is not None else 0) | (0x40 if password is not None else 0) | (0x02 if clean else 0)
    body = field(b"MQTT") + bytes([4, flags, 0, 60]) + field(client_id.encode())
    for text in (user, password):
        if text is not None:
            body += field(text.encode())
    return packet(0x10, body)


@contextmanager
def knock(
    port: int, client_id: str, user: str | None, password: str | None, *, clean: bool = False, source: str = LOOPBACK, tls: ssl.SSLContext | None = None
) -> Iterator[tuple[int | None, socket.socket]]:
    """The broker's answer to CONNECT in MQTT 3.1.1 (None if it hung up), and the connection."""
    with closing(socket.create_connection((LOOPBACK, port), timeout=120, source_address=(source, 0))) as plain:
        stream = tls.wrap_socket(plain, server_hostname=LOOPBACK) if tls else plain
        stream.sendall(connect_packet(client_id, user, password, clean=clean))
        try:
            answer = stream.recv(4)
        except ConnectionError:
            answer = b""
        yield (answer[3] if len(answer) == 4 else None), stream


def answer(port: int, client_id: str, user: str | None, password: str | None, **how: object) -> int | None:
    with knock(port, client_id, user, password, **how) as (code, _):
        return code


def noted(data: Path, kind: str, who: str | None = None, source: str | None = None) -> int:
    """How often the journal has such an event on record."""
    with closing(sqlite3.connect(f"file:{data / 'journal.db'}?mode=ro", uri=True, timeout=120)) as journal:
        rows = journal.execute("SELECT who, source, times FROM security_event WHERE kind = ?", (kind,)).fetchall()
    return sum(times for of, at, times in rows if (who is None or of == who) and (source is None or at == source))
