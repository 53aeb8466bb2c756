"""Between worker and broker: passes every byte on and times each PUBLISH until its PUBACK.

Runs until its standard input is closed, then prints one JSON line.
"""

import argparse
import json
import select
import socket
import sys
import threading
import time

LOOPBACK = "127.0.0.1"
PUBLISH, PUBACK = 0x30, 0x40


class Packets:
    """Cuts a byte stream into MQTT packets: (first byte, body as far as it is of interest)."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        data = self._rest + data
        found, at, size = [], 0, len(data)
        while size - at >= 2:
            length, shift, body = 0, 0, at + 1
            while body < size and data[body] & 0x80:
                length |= (data[body] & 0x7F) << shift
                shift, body = shift + 7, body + 1
            if body >= size:
                break
            length |= data[body] << shift
            body += 1
            if size < body + length:
                break
            found.append((data[at], data[body : body + min(length, 300)]))
            at = body + length
        self._rest = data[at:]
        return found


class Tap:
    def __init__(self, to_port: int) -> None:
        self._to = to_port
        self._door = socket.create_server((LOOPBACK, 0))
        self.port = self._door.getsockname()[1]
        self.began = time.perf_counter()
        self.took_s: list[tuple[float, float]] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            worker, _ = self._door.accept()
            threading.Thread(target=self._carry, args=(worker,), daemon=True).start()

    def _carry(self, worker: socket.socket) -> None:
        broker = socket.create_connection((LOOPBACK, self._to))
        for sock in (worker, broker):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        down, up = Packets(), Packets()
        delivered: dict[bytes, float] = {}
        poller = select.poll()
        poller.register(worker, select.POLLIN)
        poller.register(broker, select.POLLIN)
        while True:
            for fd, _ in poller.poll():
                source, target = (broker, worker) if fd == broker.fileno() else (worker, broker)
                try:
                    data = source.recv(65_536)
                    now = time.perf_counter()
                    target.sendall(data)
                except OSError:
                    data = b""
                if not data:
                    worker.close()
                    broker.close()
                    return
                if source is broker:
                    for first, body in down.feed(data):
                        if first & 0xF6 == PUBLISH | 2:
                            topic = int.from_bytes(body[:2])
                            delivered[body[2 + topic : 4 + topic]] = now
                else:
                    for first, body in up.feed(data):
                        if first & 0xF0 == PUBACK and (since := delivered.pop(body[:2], None)) is not None:
                            self.took_s.append((since, now - since))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=int, required=True, help="port of the broker")
    tap = Tap(parser.parse_args().to)
    print(json.dumps({"port": tap.port}), flush=True)
    sys.stdin.read()
    print(json.dumps([[at - tap.began, took] for at, took in tap.took_s]), flush=True)


if __name__ == "__main__":
    main()
