"""InfluxDB 1.x with the v2 write path, as cheap as it gets: rewrites request lines, streams the rest.

`/api/v2/write?bucket=` becomes `/write?db=&rp=`; bodies and answers pass as they are.
Runs until its standard input is closed.
"""

import argparse
import json
import socket
import sys
import threading
from urllib.parse import parse_qs, urlencode, urlsplit

LOOPBACK = "127.0.0.1"
PRECISION = {"ns": "n", "us": "u", "ms": "ms", "s": "s"}


Buckets = dict[str, tuple[str, str]]
"""Bucket → (database, retention policy)."""


def translate(request_line: bytes, buckets: Buckets) -> bytes:
    method, target, version = request_line.decode("ascii").split(" ")
    parts = urlsplit(target)
    if parts.path == "/api/v2/write":
        asked = {key: values[0] for key, values in parse_qs(parts.query).items()}
        database, policy = buckets[asked["bucket"]]
        target = "/write?" + urlencode({"db": database, "rp": policy, "precision": PRECISION[asked.get("precision", "ns")]})
    return f"{method} {target} {version}".encode("ascii")


def requests(client: socket.socket, engine: socket.socket, buckets: Buckets) -> None:
    """Pass requests on until the client hangs up."""
    data = b""
    while True:
        while b"\r\n\r\n" not in data:
            if not (more := client.recv(65_536)):
                engine.shutdown(socket.SHUT_WR)
                return
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        line, _, headers = head.partition(b"\r\n")
        length = 0
        for header in headers.split(b"\r\n"):
            name, _, value = header.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        engine.sendall(translate(line, buckets) + b"\r\n" + headers + b"\r\n\r\n" + body[:length])
        data, left = body[length:], length - len(body[:length])
        while left:
            if not (more := client.recv(min(left, 262_144))):
                engine.close()
                return
            engine.sendall(more)
            left -= len(more)


def answers(engine: socket.socket, client: socket.socket) -> None:
    try:
        while data := engine.recv(65_536):
            client.sendall(data)
    except OSError:
        pass  # the client was faster
    client.close()


def quietly(work, *arguments) -> None:
    try:
        work(*arguments)
    except OSError:
        pass  # one side was cut; the other notices


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=int, required=True, help="port of InfluxDB")
    parser.add_argument("--buckets", type=json.loads, required=True, help="JSON: bucket → [database, retention policy]")
    options = parser.parse_args()
    behind = options.to
    door = socket.create_server((LOOPBACK, 0))

    def serve() -> None:
        while True:
            client, _ = door.accept()
            engine = socket.create_connection((LOOPBACK, behind))
            for sock in (client, engine):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=quietly, args=(requests, client, engine, options.buckets), daemon=True).start()
            threading.Thread(target=quietly, args=(answers, engine, client), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    print(json.dumps({"port": door.getsockname()[1]}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
