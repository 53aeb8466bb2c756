"""InfluxDB 2 (or anything with its write endpoint), through influxdb-client.

Readings go to one bucket, points of lasting measurements to another that keeps them longer. Only a 204 is proof. Lines are built here once, sent synchronously, gzip-compressed; sending the
same entries again overwrites the same points.
"""

import gzip
from collections import deque
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any

import orjson
import urllib3
from influxdb_client import InfluxDBClient, WritePrecision
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.rest import ApiException
from urllib3.exceptions import HTTPError

from ingest import failpoints
from ingest.errors import BucketAtFault, Mistake, Unavailable
from ingest.points import Entry, is_lasting, unpack
from ingest.settings import Settings, read_secret
from ingest.sink import Held, NotReadable, RefusedEntry
from schemas.measurements import MEASUREMENTS, MESSAGE_FIELDS, Kind, Measurement, Point
from schemas.messages import StatusReason
from schemas.rejections import Reason
from schemas.topics import Stream

INCIDENT_SHARE = 0.05
INCIDENT_DEVICES = 3
INCIDENT_WINDOW = 1_000
"""When so large a part of the last messages, of so many devices, is refused, the bucket is at fault
and not the messages: they are held back instead of being set aside one by one."""

RETRY_CAP_S = 300.0
HOLD_S = 30.0


class InfluxSink:
    name = "influxdb"
    is_open = True

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._recent: deque[str | None] = deque(maxlen=INCIDENT_WINDOW)
        self._connect()

    def _connect(self) -> None:
        s = self._settings
        token = read_secret(s.influx_token_file, "the InfluxDB token") or ""
        self._client = InfluxDBClient(url=s.influx_url, token=token, org=s.influx_org, timeout=s.influx_timeout_ms)
        # The library would compress at its slowest level, five times the work for half the bytes.
        self._client.api_client.set_default_header("Content-Encoding", "gzip")
        self._api = self._client.write_api(write_options=SYNCHRONOUS)

    def open(self, journal_uuid: str) -> int | None:
        return None  # writing again is harmless, so nothing needs to be remembered there

    def write(self, entries: list[Entry]) -> list[RefusedEntry]:
        refused: list[RefusedEntry] = []
        for bucket, some in self._by_bucket(entries).items():
            self._write(bucket, some, refused)
        lost = {r.entry.id for r in refused}
        recent = deque(self._recent, maxlen=INCIDENT_WINDOW)
        recent.extend(e.device_id if e.id in lost else None for e in entries)
        unlucky = [device_id for device_id in recent if device_id is not None]
        if lost and len(unlucky) > INCIDENT_SHARE * len(recent) and len(set(unlucky)) >= INCIDENT_DEVICES:
            raise BucketAtFault(
                f"schema incident: {len(unlucky)} of the last {len(recent)} messages of {len(set(unlucky))} devices refused "
                f"({refused[0].detail}); held back, mend the bucket",
                retry_after_s=HOLD_S,
            )
        self._recent = recent
        return refused

    def _by_bucket(self, entries: list[Entry]) -> dict[str, list[Entry]]:
        """The entries of each bucket, in their order. An outage of either holds back all: none is settled before."""
        s = self._settings
        found: dict[str, list[Entry]] = {}
        for entry in entries:
            found.setdefault(s.influx_long_bucket if is_lasting(entry) else s.influx_bucket, []).append(entry)
        return found

    def _write(self, bucket: str, entries: list[Entry], refused: list[RefusedEntry]) -> None:
        """Write; what is refused is halved until each part has its own 204 or is one entry."""
        verdict = self._post(bucket, entries)
        if verdict is None:
            failpoints.reach("posted")
            return
        if len(entries) == 1:
            reason, detail = verdict
            refused.append(RefusedEntry(entries[0], reason, detail))
            return
        failpoints.reach("bisecting")
        middle = len(entries) // 2
        self._write(bucket, entries[:middle], refused)
        self._write(bucket, entries[middle:], refused)

    def _post(self, bucket: str, entries: list[Entry]) -> tuple[Reason, str] | None:
        """None when the store has it; the reason when it never will; Unavailable otherwise."""
        return self._send(bucket, "\n".join(line for entry in entries for line in lines(entry)))

    def _send(self, bucket: str, body: str) -> tuple[Reason, str] | None:
        packed = gzip.compress(body.encode(), compresslevel=1)
        try:
            self._api.write(bucket, record=packed, write_precision=WritePrecision.NS)
        except ApiException as error:
            return self._verdict(bucket, error)
        except (HTTPError, OSError) as error:
            raise Unavailable(f"{self._settings.influx_url}: {type(error).__name__}: {error}") from error
        status = self._client.api_client.last_response.status
        if status != 204:  # a page of a proxy, perhaps
            raise Unavailable(f"{self._settings.influx_url}: {status}, where InfluxDB says 204; check the address", retry_after_s=HOLD_S)
        return None

    def _verdict(self, bucket: str, error: ApiException) -> tuple[Reason, str]:
        status = error.status
        said = " ".join((error.body or error.reason or "").split())[:200] if isinstance(error.body, str | None) else str(error.reason)
        if status in (401, 403, 404):
            try:
                self._connect()  # the token may have been replaced
            except Mistake as mistake:
                said = f"{said}; {mistake}"
            raise Unavailable(f"{status}: {said}; check url, org, bucket {bucket} and token", retry_after_s=HOLD_S) from error
        if status in (429, 503):
            raise Unavailable(f"{status}: {said}", retry_after_s=_retry_after_s(error)) from error
        if status == 408 or status is None or not 400 <= status < 500:  # 0: no trust in the certificate; 3xx: it is elsewhere
            raise Unavailable(f"{status}: {said}") from error
        if status == 422:
            return Reason.SINK_REJECTED_422, f"422: {said}"
        return Reason.SINK_REJECTED_400, f"{status}: {said}"

    def knows_another(self, journal_uuid: str) -> bool:
        return False  # writing a message again overwrites it, whichever journal it comes from

    def forget(self, readings_ms: int, lasting_ms: int) -> bool:
        return False  # each bucket has its own retention; a token that may write cannot delete

    def probe(self) -> str:
        """Write one point of a measurement that nothing else uses; only that proves the token's right."""
        s = self._settings
        buckets = list(dict.fromkeys((s.influx_bucket, s.influx_long_bucket)))
        for bucket in buckets:
            verdict = self._send(bucket, "check ok=true")
            if verdict is not None:
                reason, detail = verdict
                raise Unavailable(f"bucket {bucket}: {reason}: {detail}")
        return f"InfluxDB at {s.influx_url} takes writes to bucket{'s' * (len(buckets) > 1)} {' and '.join(buckets)}"

    def device_ids(self) -> list[str]:
        found = {value for stream in Stream for _, value in self._query(f'SHOW TAG VALUES FROM "{stream}" WITH KEY = "device_id"')}
        return sorted(found)

    def held(self, device_ids: list[str]) -> Iterator[Held]:
        """Of each reading the message it is of, as the answer comes in. No point can be there twice: a series has one at a time."""
        for device_id in device_ids:
            for stream in Stream:
                reason = ', "reason"' if stream is Stream.STATUS else ""
                device = device_id.translate(_ESCAPE_NAME)
                for _, boot_id, seq, *rest in self._query(f'SELECT "boot_id", "seq"{reason} FROM "{stream}" WHERE "device_id" = \'{device}\''):
                    yield device_id, int(boot_id), int(seq), rest == [StatusReason.WILL], False

    def holds(self, point: Point) -> bool:
        names = ", ".join(f'"{name}"' for name in point.fields)
        where = f'"device_id" = \'{point.tags[0]}\' AND time = {point.time_ns}'
        try:
            rows = self._query(f'SELECT {names} FROM "{point.measurement}" WHERE {where}')
            return any([int(value) for value in values] == list(point.fields.values()) for _, *values in rows)
        except NotReadable:
            raise
        except Mistake as mistake:
            raise Unavailable(str(mistake)) from mistake

    def _query(self, influxql: str) -> Iterator[list]:
        """Rows of an InfluxQL query, streamed in chunks."""
        s = self._settings
        token = read_secret(s.influx_read_token_file or s.influx_token_file, "the InfluxDB token") or ""
        url = f"{s.influx_url.rstrip('/')}/query"
        fields = {"db": s.influx_bucket, "q": influxql, "epoch": "ns", "chunked": "true", "chunk_size": "10000"}
        pool = urllib3.PoolManager(retries=False, timeout=s.influx_timeout_ms / 1000)
        try:
            answer = pool.request("GET", url, fields=fields, headers={"Authorization": f"Token {token}"}, preload_content=False)
            if answer.status != 200:
                refused = NotReadable if answer.status in (401, 403, 404) else Mistake
                raise refused(f"{url}: {answer.status} {answer.read(200).decode(errors='replace').strip()}")
            for line in answer:
                if line.strip():
                    yield from _rows(orjson.loads(line))
        except (HTTPError, OSError) as error:
            raise Mistake(f"{url}: cannot be asked ({error})") from error

    def close(self) -> None:
        self._client.close()


def _rows(answer: dict) -> Iterator[list]:
    for result in answer.get("results", []):
        if "error" in result:
            raise Mistake(f"InfluxDB: {result['error']}")
        for series in result.get("series", []):
            yield from series["values"]


def _retry_after_s(error: ApiException) -> float | None:
    value = (error.headers or {}).get("Retry-After")
    try:
        return min(RETRY_CAP_S, max(0.0, float(value))) if value else None
    except ValueError:
        return None


def _template(measurement: Measurement) -> tuple[str, Callable[[dict], tuple], tuple[str, ...]]:
    """A format for the fields every row has, what takes them out of a row, and the names of those that may be absent."""
    names = measurement.sample or tuple(measurement.fields)
    always = [n for n in names if n not in measurement.optional]
    sometimes = tuple(n for n in names if n in measurement.optional)
    return ",".join(f"{n}={_PLACE[measurement.fields[n]]}" for n in always), itemgetter(*always), sometimes


_PLACE = {Kind.FLOAT: "%s", Kind.INTEGER: "%si", Kind.BOOLEAN: "%s", Kind.STRING: '"%s"'}
_HEADS = {name: name + "".join(f",{tag}=%s" for tag in m.tags) for name, m in MEASUREMENTS.items()}
_SHARED = "".join(f",{n}={_PLACE[kind].replace('%', f'%({n})')}" for n, kind in MESSAGE_FIELDS.items())
_SHARED_OUTSIDE_SESSIONS = _SHARED.replace(',session_id="%(session_id)s"', "")
_TEMPLATES = {name: _template(m) for name, m in MEASUREMENTS.items()}
_ESCAPE_NAME = str.maketrans({"'": "\\'", "\\": "\\\\"})
_ESCAPE = str.maketrans({'"': '\\"', "\\": "\\\\", "\n": " ", "\r": " "})


def lines(entry: Entry) -> list[str]:
    """Line protocol, one line a row. Tag values and words of the contract need no escaping."""
    rows = unpack(entry)
    measurement = rows.measurement
    head = _HEADS[measurement.name] % rows.tags
    if not entry.is_message:
        ((time_ns, fields),) = rows.rows
        text = ",".join(f"{n}={literal(v, measurement.fields[n])}" for n, v in fields.items())
        return [f"{head} {text} {time_ns}"]
    shared = _SHARED % rows.shared if rows.shared["session_id"] is not None else _SHARED_OUTSIDE_SESSIONS % rows.shared
    template, always, sometimes = _TEMPLATES[measurement.name]
    if not sometimes:
        return [f"{head} {template % always(fields)}{shared} {time_ns}" for time_ns, fields in rows.rows]
    found = []
    for time_ns, fields in rows.rows:
        extra = "".join(
            f",{n}={literal(fields[n], measurement.fields[n])}" for n in sometimes if fields.get(n) is not None
        )
        found.append(f"{head} {template % always(fields)}{extra}{shared} {time_ns}")
    return found


def literal(value: Any, kind: Kind) -> str:
    if kind is Kind.FLOAT:
        return repr(float(value))
    if kind is Kind.INTEGER:
        return f"{value}i"
    if kind is Kind.BOOLEAN:
        return str(value)
    return f'"{value.translate(_ESCAPE)}"'
