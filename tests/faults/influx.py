"""An InfluxDB 2 that answers as it is told: the write endpoint, its errors, and an exact record of what it holds.

What it does by itself follows RELIABILITY 2.3 I9: a line that cannot be parsed is 400 and nothing is written; a point that
is refused for its value is 422 and the others are written; a point of the same measurement, tags and time overwrites.
"""

import gzip
import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

LOOPBACK = "127.0.0.1"
BUCKET, LONG_BUCKET = "telemetry", "telemetry_long"

PointKey = tuple[str, str, str, int]
"""(bucket, measurement, tags as written, time ns)"""


@dataclass(frozen=True)
class Answer:
    """`keeps`: which lines are written (all of them, none, or those for which it is true). `after_s`: how long it waits
    before it answers. `hangs_up`: the connection is cut instead of, or within, the answer."""

    status: int = 204
    keeps: Callable[[str], bool] | bool = True
    said: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    after_s: float = 0.0
    hangs_up: bool = False


WRITTEN = Answer()


def refused(status: int, said: str = "", **headers: str) -> Answer:
    """An answer after which nothing has been written."""
    return Answer(status, False, said or f"status {status}", {name.replace("_", "-"): value for name, value in headers.items()})


@dataclass(frozen=True)
class Request:
    at_s: float
    status: int
    lines: int
    new: int
    """Lines that were written and were not there before with the same fields."""


class FakeInflux:
    """`script` is asked for the answer to each request, with its number from 0 and its lines; None: the ordinary one."""

    def __init__(self, script: Callable[[int, list[str]], Answer | None] | None = None) -> None:
        self.script = script
        self.is_bad: Callable[[str], bool] | None = None
        """Lines that cannot be parsed: 400, and nothing of the request is written."""
        self.is_refused: Callable[[str], bool] | None = None
        """Points that are refused: 422, and the others are written."""
        self.points: dict[PointKey, str] = {}
        self.overwritten: Counter[str] = Counter()
        """By measurement: points written again as they were, …"""
        self.changed: Counter[str] = Counter()
        """… and with other fields."""
        self.requests: list[Request] = []
        self.lock = threading.Lock()
        self._count = 0

    def __enter__(self) -> Self:
        self._server = _Server((LOOPBACK, 0), _Handler)
        self._server.fake = self
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def settings(self) -> dict[str, Any]:
        return {"store": "influxdb", "influx_url": self.url, "influx_bucket": BUCKET, "influx_long_bucket": LONG_BUCKET}

    def statuses(self) -> Counter[int]:
        return Counter(request.status for request in self.requests)

    def heal(self) -> None:
        self.script = self.is_bad = self.is_refused = None

    # -- one request ------------------------------------------------------------------------------

    def answer(self, bucket: str, lines: list[str]) -> Answer:
        with self.lock:
            number, self._count = self._count, self._count + 1
        script = self.script
        given = script(number, lines) if script else None
        if given is None:
            given = self._ordinary(lines)
        with self.lock:
            new = self._write(bucket, lines, given.keeps)
            self.requests.append(Request(time.monotonic(), given.status, len(lines), new))
        return given

    def _ordinary(self, lines: list[str]) -> Answer:
        if self.is_bad and any(map(self.is_bad, lines)):
            first = next(line for line in lines if self.is_bad(line))
            return refused(400, json.dumps({"code": "invalid", "message": f"unable to parse '{first[:60]}': bad timestamp"}))
        if self.is_refused and (some := [line for line in lines if self.is_refused(line)]):
            said = {"code": "unprocessable entity", "message": f"failure writing points to database: partial write: field type conflict dropped={len(some)}"}
            return Answer(422, lambda line: not self.is_refused(line), json.dumps(said))
        return WRITTEN

    def _write(self, bucket: str, lines: list[str], keeps: Callable[[str], bool] | bool) -> int:
        new = 0
        for line in lines:
            if keeps is True or (keeps is not False and keeps(line)):
                series, fields, at = split(line)
                measurement, _, tags = series.partition(",")
                key = (bucket, measurement, tags, at)
                before = self.points.get(key)
                if before is None:
                    new += 1
                elif before == fields:
                    self.overwritten[measurement] += 1
                else:
                    self.changed[measurement] += 1
                self.points[key] = fields
        return new

    # -- what it holds ----------------------------------------------------------------------------

    def rows(self, measurement: str) -> list[dict[str, Any]]:
        """Every point of a measurement as a flat row with `time_ns`."""
        with self.lock:
            held = [(key, fields) for key, fields in self.points.items() if key[1] == measurement]
        return [
            {"time_ns": at, **dict(pair.split("=", 1) for pair in tags.split(",")), **fields_of(fields)} for (_, _, tags, at), fields in held
        ]


def split(line: str) -> tuple[str, str, int]:
    """(series, fields, time) of a line; only strings of fields may hold spaces."""
    series, _, rest = line.partition(" ")
    fields, _, at = rest.rpartition(" ")
    return series, fields, int(at)


def fields_of(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    at = 0
    while at < len(text):
        end = text.index("=", at)
        name, at = text[at:end], end + 1
        if text[at] == '"':
            at, said = at + 1, []
            while text[at] != '"':
                if text[at] == "\\":
                    at += 1
                said.append(text[at])
                at += 1
            found[name], at = "".join(said), at + 2
            continue
        end = text.find(",", at)
        end = len(text) if end < 0 else end
        found[name], at = _value(text[at:end]), end + 1
    return found


def _value(text: str) -> Any:
    if text.endswith("i"):
        return int(text[:-1])
    if text in ("true", "True", "t", "T", "false", "False", "f", "F"):
        return text[0] in "tT"
    return float(text)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    fake: FakeInflux


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        bucket = parse_qs(urlsplit(self.path).query).get("bucket", [""])[0]
        answer = self.server.fake.answer(bucket, [line for line in body.decode().split("\n") if line])
        time.sleep(answer.after_s)
        if answer.hangs_up:
            self.close_connection = True
            if answer.status:  # half an answer, then a reset
                self.wfile.write(b"HTTP/1.1 204 No Con")
                self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        said = answer.said.encode()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.status != 204:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        if answer.status != 204:
            self.wfile.write(said)

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, ValueError):
            pass  # its client was killed or has given up

    def log_message(self, format: str, *args: Any) -> None:
        """What it is asked stands in `requests`."""
