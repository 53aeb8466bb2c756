"""What the world can send that is no message of the contract, row by row, and what must become of it.

The rows are those of the table in docs/bad-inputs.md. A payload is made from a document, so that the same
defect can be tried on a harmless reading and on a dangerous one, whose danger must be told all the same.
"""

import gzip
import json
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.system import packets

STORED = "stored"
PEAK_UA = 1_400.0
DANGER = {"i_peak_ua": PEAK_UA, "v_peak_mv": 11_200.0}
"""A current three times beyond its limit, at a voltage that goes with it; one reading is enough."""

Document = dict[str, Any]
Spoil = Callable[[Document], bytes]


@dataclass(frozen=True)
class Case:
    """`alarm`: whether danger in such a message can still be read, and so must be told."""

    row: int
    name: str
    spoil: Spoil
    reason: str
    alarm: bool = True


def plain(document: Document) -> bytes:
    return json.dumps(document).encode()


def put(field: str, raw: str | bytes) -> Spoil:
    """The document with this text, which may be no JSON at all, as the value of one field of envelope or sample."""

    def spoil(document: Document) -> bytes:
        sample = document["samples"][0]
        marked = {**document, field: "@"} if field in document else {**document, "samples": [{**sample, field: "@"}]}
        return plain(marked).replace(b'"@"', raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw, 1)

    return spoil


def again(field: str, key: str | None = None) -> Spoil:
    """One key, or another spelling of it, a second time with the same value."""

    def spoil(document: Document) -> bytes:
        value = json.dumps(document.get(field, document["samples"][0].get(field)))
        return put(field, f'{value}, "{key or field}": {value}')(document)

    return spoil


def without(field: str) -> Spoil:
    return lambda document: plain({key: value for key, value in document.items() if key != field})


def with_key(key: str, value: Any) -> Spoil:
    return lambda document: plain({key: value, **document})


def in_sample(key: str, value: Any) -> Spoil:
    return lambda document: plain({**document, "samples": [{key: value, **document["samples"][0]}]})


def on(change: Callable[[bytes], bytes]) -> Spoil:
    """Something done to the whole text."""
    return lambda document: change(plain(document))


def said(payload: bytes) -> Spoil:
    """These bytes, whatever the document."""
    return lambda _: payload


def grown(size: int) -> Spoil:
    return on(lambda text: text + b" " * (size - len(text)))


def _protobuf(document: Document) -> bytes:
    """Field 1 a varint, field 2 the text, as protobuf writes them."""
    text = plain(document)
    return b"\x08\x96\x01\x12" + bytes([len(text) & 127 | 128, len(text) >> 7]) + text


BOMB = gzip.compress(b"\x00" * 10_000_000)

PAYLOADS: tuple[Case, ...] = (
    Case(1, "empty", said(b""), "json_syntax", alarm=False),
    *(Case(2, f"only {text}", said(text.encode()), "schema", alarm=False) for text in ("null", "[]", "1", '"x"', "true", "{}")),
    Case(2, "a list of messages", on(lambda text: b"[" + text + b"]"), "schema"),
    Case(3, "cut short", on(lambda text: text[:-1]), "json_syntax"),
    Case(3, "cut in the middle of a number", on(lambda text: text[: text.index(b"i_rms") + 15]), "json_syntax"),
    Case(3, "trailing garbage", on(lambda text: text + b"x"), "json_syntax"),
    Case(3, "two documents", on(lambda text: text + b"\n" + text), "json_syntax"),
    Case(3, "a comma too many", on(lambda text: text[:-1] + b",}"), "json_syntax"),
    Case(3, "single quotes", on(lambda text: text.replace(b'"', b"'")), "json_syntax"),
    Case(5, "a byte that is not UTF-8", put("session_id", b'"s\xff1"'), "encoding"),
    Case(5, "an overlong slash", put("session_id", b'"\xc0\xaf"'), "encoding"),
    Case(5, "an encoded surrogate", put("session_id", b'"\xed\xa0\x80"'), "encoding"),
    *(
        Case(5, encoding, on(lambda text, encoding=encoding: text.decode().encode(encoding)), "encoding")
        for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")
    ),
    Case(5, "a byte order mark", on(lambda text: b"\xef\xbb\xbf" + text), "json_syntax"),
    Case(7, "an escaped NUL", put("session_id", '"s\\u0000"'), "schema"),
    Case(7, "an escaped bell", put("hw", '"B\\u0007"'), "schema"),
    Case(7, "a raw NUL", put("session_id", '"s\x00"'), "json_syntax"),
    Case(7, "a raw escape", put("fw", '"2\x1b[2J"'), "json_syntax"),
    *(Case(8, text, put("i_rms_ua", text), "nonfinite") for text in ("NaN", "Infinity", "-Infinity", "1e999", '"NaN"', '"-inf"')),
    Case(9, "true for a number", put("i_rms_ua", "true"), "schema"),
    Case(9, "words for seq", put("seq", '"7"'), "schema"),
    Case(9, "1.0 for seq", put("seq", "1.0"), "schema"),
    Case(9, "1 for a flag", put("boost", "1"), "schema"),
    Case(9, "null for a number", put("duty", "null"), "schema"),
    Case(9, "an object for a number", put("duty", '{"a":1}'), "schema"),
    Case(11, "-0.0", put("i_dc_ua", "-0.0"), STORED),
    Case(11, "the least number", put("i_dc_ua", "5e-324"), STORED),
    Case(11, "a denormal", put("i_dc_ua", "-2.2250738585072011e-308"), STORED),
    Case(11, "1E2", put("i_rms_ua", "1E2"), STORED),
    Case(11, "1e308", put("q_pos_uc", "1e308"), "range"),
    Case(11, "seq beyond 64 bits", put("seq", "9" * 25), "range"),
    Case(11, "a number of 5000 digits", put("seq", "9" * 5_000), "json_syntax"),
    Case(12, "more current than any device has", put("i_rms_ua", "100001"), "range"),
    Case(12, "a negative duration", put("dt_ms", "-1"), "range"),
    Case(12, "a window of no time", put("window_ms", "0"), "range"),
    Case(12, "more than the whole in clipping", put("clip_frac", "1.0000001"), "range"),
    Case(12, "samples out of order", lambda d: plain({**d, "samples": d["samples"] * 2}), "schema"),
    Case(12, "no samples", lambda d: plain({**d, "samples": []}), "schema", alarm=False),
    Case(14, "seq twice", again("seq"), "dup_keys"),
    Case(14, "boot_id twice", again("boot_id"), "dup_keys"),
    Case(14, "samples twice", on(lambda text: text[:-1] + b"," + text[text.index(b'"samples"') :]), "dup_keys"),
    Case(14, "a reading twice", again("i_rms_ua"), "dup_keys"),
    Case(14, "a reading twice, once escaped", again("i_rms_ua", "\\u0069_rms_ua"), "dup_keys"),
    Case(15, "an unknown key", with_key("colour", "red"), "schema"),
    Case(15, "an unknown key in a sample", in_sample("colour", "red"), "schema"),
    Case(15, "__proto__", with_key("__proto__", {"v": 1}), "schema"),
    *(Case(15, f"without {key}", without(key), "schema") for key in ("v", "seq", "boot_id", "ts_ms", "model")),
    *(Case(15, f"version {v}", put("v", v), "version_unsupported") for v in ("2", "0", "-1", "9" * 30)),
    Case(15, "version as text", put("v", '"1"'), "schema"),
    Case(16, "16 KiB and a byte", grown(16_385), "oversize"),
    Case(16, "nearly 64 KiB", grown(65_000), "oversize"),
    Case(18, "gzip", on(gzip.compress), "encoding", alarm=False),
    Case(18, "a gzip bomb", said(BOMB), "encoding", alarm=False),
    Case(18, "zlib", on(zlib.compress), "encoding", alarm=False),
    Case(18, "a zip archive", said(b"PK\x03\x04\x14\x00\x08\x00\x08\x00" + b"\x00" * 20 + b"a.json"), "json_syntax", alarm=False),
    Case(18, "CBOR", said(b"\xa3\x61\x76\x01\x63seq\x07\x67boot_id\x01"), "encoding", alarm=False),
    Case(18, "protobuf with the text in it", _protobuf, "encoding"),
    Case(18, "MessagePack", said(b"\x82\xa1v\x01\xa3seq\x07"), "encoding", alarm=False),
    Case(19, "another device", with_key("device", "somebody-else"), "identity_mismatch"),
    Case(19, "another device_id", with_key("device_id", "somebody-else"), "identity_mismatch"),
    Case(24, "SQL in a session", put("session_id", "\"'; DROP TABLE current; --\""), "schema"),
    Case(24, "SQL in a model", put("model", '"x\\" OR 1=1 --"'), "schema"),
    Case(24, "InfluxQL in a firmware", put("fw", "\"2'; DROP DATABASE telemetry; SELECT '\""), "schema"),
    Case(24, "line protocol in a session", put("session_id", '"s,x=1 i_peak_ua=0 1\\ncurrent i_peak_ua=0"'), "schema"),
    Case(24, "SQL in a key", with_key("x'); DELETE FROM quarantine; --", 1), "schema"),
    Case(24, "a template", put("session_id", '"${jndi:ldap://127.0.0.1/a}{{7*7}}%s%n"'), "schema"),
    Case(25, "HTML in a session", put("session_id", '"<script>alert(1)</script>"'), "schema"),
    Case(25, "HTML in a key", with_key("<img src=x onerror=alert(1)>", 1), "schema"),
    Case(25, "terminal codes in a key", with_key("\x1b[2J\x1b]0;owned\x07\x9b31m", 1), "schema"),
    Case(25, "a forged log line in a key", with_key("x\r\ntimestamp=2026-01-01 level=error event=FORGED\r\n", 1), "schema"),
    Case(25, "a forged log line in a value", put("fw", '"2\\r\\nFORGED\\u2028FORGED\\u0085FORGED"'), "schema"),
    Case(25, "text that runs backwards", with_key("\u202ereversed\u202c", 1), "schema"),
    Case(26, "Arabic digits", put("session_id", '"s-\u0661"'), "schema"),
    Case(26, "a Cyrillic letter", put("session_id", '"\u0455-1"'), "schema"),
    Case(26, "full width letters", put("model", '"\uff54oneduo-400"'), "schema"),
    Case(26, "a trailing newline", put("session_id", '"s-1\\n"'), "schema"),
    Case(26, "a lone surrogate", put("session_id", '"\\ud800"'), "json_syntax"),
    Case(26, "65 letters", put("session_id", f'"{"a" * 65}"'), "schema"),
    Case(50, "lists without end", said(b"[" * 10_000), "depth", alarm=False),
    Case(50, "objects without end", on(lambda text: text + b'{"a":' * 2_500), "json_syntax"),
    Case(50, "all bytes there are", said(bytes(range(256)) * 4), "encoding", alarm=False),
)

# -- what is said to a broker, beside messages -----------------------------------------------------------------

FORBIDDEN = (
    "mc/v1/{other}/current", "mc/v1/{other}/status", "mc/v1/{worker}/runtime", "mc/v1/{self}/ack", "mc/v1/{other}/ack", "mc/v1/{self}/alert",
    "mc/v1/{self}/gossip", "mc/v1/{self}/current/x", "mc/v1/{self}", "mc/v1//current", "/mc/v1/{self}/current", "mc/v2/{self}/current",
    "mc/v1/{self}/Current", "$SYS/broker/uptime", "$CONTROL/dynamic-security/v1", "$MQTT/sub/x", "$share/g/mc/v1/{other}/current", "//", "mc/v1/+/current",
    "mc/v1/#", "+", "#", "x" * 65_535, "mc/v1/{self}.current/current",
)  # fmt: skip

HALF = {
    "nothing": b"", "one byte": b"\x10", "half a length": b"\x10\xff", "half a CONNECT": packets.connect("x", "x", "x")[:12],
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "TLS": bytes.fromhex("16030100050100000100"), "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
}  # fmt: skip

BEFORE_CONNECT = {
    "PUBLISH first": packets.publish("mc/v1/x/current", b"{}"), "SUBSCRIBE first": packets.subscribe("#"), "PINGREQ first": packets.packet(packets.PINGREQ),
    "PUBACK first": packets.packet(packets.PUBACK, b"\0\1"), "DISCONNECT first": packets.packet(packets.DISCONNECT), "CONNACK first": packets.packet(packets.CONNACK, b"\0\0"),
    "AUTH first": packets.packet(packets.AUTH, b"\x18\0"), "another protocol": packets.connect("x", "x", "x", name=b"HTTP"),
    "no protocol": packets.connect("x", "x", "x", name=b""), "a reserved flag": packets.connect("x", "x", "x", flags=0xC3),
    "a will that is not there": packets.connect("x", "x", "x", flags=0xCE), "will QoS 3": packets.connect("x", "x", "x", flags=0xDE, will=("a", b"b")),
    "a password without a user": packets.connect("x", None, "x", flags=0x42), "a user that is not there": packets.connect("x", flags=0xC2),
    "no client id at all": packets.connect("", None, None, clean=False), "a long client id": packets.connect("c" * 60_000, "x", "x"),
    "CONNECT of no length": packets.packet(packets.CONNECT), "five bytes of length": b"\x10\xff\xff\xff\xff\xff\x01", "flags on CONNECT": packets.packet(packets.CONNECT, b"\0\4MQTT\4\2\0\0\0\0", 15),
    "QoS 2 PUBREL": packets.packet(packets.PUBREL, b"\0\1", 2), "random": bytes(random.Random(2).randbytes(4_000)),
}  # fmt: skip
AFTER_CONNECT = {
    "CONNECT again": packets.connect("x", "x", "x"), "CONNACK": packets.packet(packets.CONNACK, b"\0\0"), "SUBACK": packets.packet(packets.SUBACK, b"\0\1\1"),
    "UNSUBACK": packets.packet(packets.UNSUBACK, b"\0\1"), "PINGRESP": packets.packet(packets.PINGRESP), "type 0": packets.packet(0), "type 15": packets.packet(15, b"\0\0"),
    "QoS 3": packets.packet(packets.PUBLISH, packets.text("a") + b"\0\1x", 6), "packet number 0": packets.publish("a", b"x", mid=0),
    "PUBLISH without a topic": packets.packet(packets.PUBLISH, b"", 2), "a topic longer than its packet": packets.packet(packets.PUBLISH, b"\xff\xffab", 2),
    "PUBLISH without a number": packets.packet(packets.PUBLISH, packets.text("a"), 2), "SUBSCRIBE without its flag": packets.packet(packets.SUBSCRIBE, b"\0\1" + packets.text("a") + b"\1"),
    "SUBSCRIBE to nothing": packets.packet(packets.SUBSCRIBE, b"\0\1", 2), "SUBSCRIBE QoS 3": packets.packet(packets.SUBSCRIBE, b"\0\1" + packets.text("a") + b"\3", 2),
    "SUBSCRIBE number 0": packets.packet(packets.SUBSCRIBE, b"\0\0" + packets.text("a") + b"\1", 2), "a filter of NUL": packets.packet(packets.SUBSCRIBE, b"\0\1" + packets.text(b"a\0b") + b"\1", 2),
    "a filter that is none": packets.subscribe("a/#/b"), "half a wildcard": packets.subscribe("a+/b"), "UNSUBSCRIBE of nothing": packets.packet(packets.UNSUBSCRIBE, b"\0\1", 2),
    "PUBACK of nothing": packets.packet(packets.PUBACK), "PUBACK of half a number": packets.packet(packets.PUBACK, b"\0"), "PUBACK never asked for": packets.packet(packets.PUBACK, b"\x12\x34"),
    "PUBREC never asked for": packets.packet(packets.PUBREC, b"\x12\x34"), "PUBREL never asked for": packets.packet(packets.PUBREL, b"\x12\x34", 2),
    "PUBCOMP never asked for": packets.packet(packets.PUBCOMP, b"\x12\x34"), "PINGREQ with a body": packets.packet(packets.PINGREQ, b"abc"),
    "DISCONNECT with flags": packets.packet(packets.DISCONNECT, b"", 5), "length of no end": b"\x30\x80\x80\x80\x80\x80\x80", "random": bytes(random.Random(3).randbytes(4_000)),
}  # fmt: skip

# -- what is asked of the page -----------------------------------------------------------------------------------

INJECTIONS = (
    "' OR 1=1 --", "'; DROP TABLE quarantine; --", '" OR ""="', "x') UNION SELECT payload FROM raw --", "%00", "\\", "*", "$1", "${HOME}", "../../etc/passwd", "a\u2028b", "a\r\nX-Injected: 1",
    "<script>alert(1)</script>", "\x1b[2J", "9" * 400, "-1", "NaN", "\ud7ff\U0010ffff",
)  # fmt: skip

# -- the table ---------------------------------------------------------------------------------------------------

ROWS: dict[int, str] = {
    1: "empty payload",
    2: "a value that is no object",
    3: "truncated JSON, trailing garbage, two documents",
    5: "invalid UTF-8, overlong, UTF-16, UTF-32",
    7: "NUL and control characters in strings",
    8: "NaN, infinities, numbers beyond floats",
    9: "values of another type",
    11: "extreme numbers",
    12: "physically or electrically impossible values",
    14: "the same key twice",
    15: "unknown keys, missing keys, another version",
    16: "too large: payload, packet, and announced",
    18: "compressed and binary payloads",
    19: "the payload names another device",
    20: "publishing as another device",
    21: "topics that are none",
    22: "a device that nobody knows",
    24: "SQL, InfluxQL and template injection",
    25: "HTML, terminal codes, forged log lines",
    26: "Unicode digits and look-alikes in ids",
    28: "replayed messages",
    29: "replayed messages with another value",
    32: "retained messages",
    33: "QoS 0 and QoS 2",
    35: "subscribing to what is not one's own",
    36: "anonymous, empty, wrong and unknown credentials",
    37: "brute force",
    38: "taking the worker's client id",
    39: "taking a client id without credentials",
    40: "one device's credential from two places",
    41: "certificates and TLS versions",
    42: "slow, half and idle connections",
    43: "malformed packets and protocol order errors",
    45: "publishing below $SYS and $CONTROL",
    46: "page, API and metrics: other hosts, other sites, path traversal",
    47: "Grafana's defaults and rights",
    48: "rights of the store's tokens",
    49: "secrets in files, environments, arguments, logs",
    50: "random and mutated input",
}

ELSEWHERE: dict[int, str] = {
    24: "`make fuzz`",
    25: "`tests/system/test_browser.py`",
    35: "`tests/system/test_access.py`",
    36: "`tests/system/test_access.py`",
    37: "`tests/system/test_access.py`, `test_access_page.py`. Mosquitto answers each guess: its passwords have 256 random bits",
    38: "`tests/system/test_access.py`",
    39: "`tests/system/test_access.py`",
    40: "`tests/system/test_access.py`, `test_access_stack.py`",
    41: "`tests/system/test_access_stack.py`, `test_access.py`",
    42: "see below",
    46: "`tests/system/test_access_page.py`",
    47: "no Grafana runs here: `tests/contract/test_stack.py` looks at its settings",
    48: "no InfluxDB 2 runs here: `tests/system/test_stack_influxdb.py` looks at which tokens are made",
    49: "`tests/system/test_access.py`, `tests/contract/test_secrets.py`, `test_stack.py`",
    50: "`make fuzz`, `tests/unit/test_any_input.py`, `tests/integration/test_any_request.py`",
}
