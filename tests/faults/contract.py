"""What the oracle's devices say: a message is a function of its key and its time, so anybody can make it again.

Written from the published contract (schemas/generated/), not from the code that is judged.
"""

import json
from typing import Any, NamedTuple
from zlib import crc32

MODEL, HW, FW = "toneduo-400", "B", "2.3.1"
PLAIN, WIDE, NARROW, DANGEROUS, BIRTH, REFUSED = "p", "w", "n", "d", "b", "r"
"""Kinds of message: harmless; with ten samples; with one; far above the current limit; a birth; forbidden by the contract."""

SAMPLES_OF_WIDE = 10


class Key(NamedTuple):
    """The identity of a message."""

    device_id: str
    boot_id: int
    seq: int


def stream_of(key: Key, kind: str) -> str:
    if kind == BIRTH:
        return "status"
    if kind in (DANGEROUS, WIDE, NARROW):
        return "current"
    return ("current", "current", "contact", "current", "current", "runtime", "current", "health")[key.seq % 8]


def mark_of(key: Key) -> int:
    return crc32(f"{key.device_id}/{key.boot_id}/{key.seq}".encode())


def samples_of(key: Key, kind: str) -> list[dict[str, Any]]:
    """The samples; their numbers carry the key's mark, so that no two messages are alike."""
    mark, stream = mark_of(key), stream_of(key, kind)
    if stream == "status":
        return [{"dt_ms": 0, "state": "online", "reason": "birth", "oldest_seq": None}]
    many = 1 + mark % 3 if stream in ("current", "contact") and kind != NARROW else 1
    if kind == WIDE:
        many = SAMPLES_OF_WIDE
    return [_sample(stream, mark + 7919 * at, 1000 * at, kind) for at in range(many)]


def _sample(stream: str, mark: int, dt_ms: int, kind: str) -> dict[str, Any]:
    part = mark % 100_000 / 100_000
    if stream == "current":
        return {
            "dt_ms": dt_ms, "window_ms": 1000, "i_set_ua": 200.0, "i_peak_ua": 900.0 + part if kind == DANGEROUS else 201.0 + part,
            "i_rms_ua": 142.0 + part, "i_dc_ua": 0.4, "q_pos_uc": 71.0, "q_neg_uc": 70.8, "v_peak_mv": 1610.0 + part, "clip_frac": 0.0,
            "freq_hz": 8.3, "pulse_us": 60000.0, "duty": 0.5, "level": 3, "boost": False, "output_enabled": True, "mode": "alt_burst",
        }  # fmt: skip
    if stream == "contact":
        return {
            "dt_ms": dt_ms, "z_ohm": 8000.0 + part, "z_hz": 8.3, "state": "good", "contact_frac": 0.8, "electrode_mask": 3,
            "make_count": 1, "break_count": 0, "motion": "moving",
        }  # fmt: skip
    if stream == "runtime":
        return {
            "dt_ms": dt_ms, "run_state": "running", "program_id": "lift", "elapsed_s": 10, "output_on_s": 10, "zone": "cheek_l",
            "zone_source": "program", "zone_elapsed_s": 5, "auto_off_s": mark % 100, "end_reason": None,
        }  # fmt: skip
    return {
        "dt_ms": dt_ms, "battery_mv": 3900.0 + part, "charging": False, "temp_head_c": 31.0, "temp_pcb_c": 33.0, "lux": None,
        "solar_mv": None, "fault_bits": 0, "self_test": "pass", "reset_reason": "power_on", "queued_msgs": mark % 50, "rssi_dbm": -60.0,
    }  # fmt: skip


def session_of(key: Key) -> str:
    return f"s-{key.boot_id}-{key.seq // 400}"


def payload_of(key: Key, ts_ms: int, kind: str) -> bytes:
    document = {
        "v": 1, "boot_id": key.boot_id, "seq": key.seq, "ts_ms": ts_ms, "uptime_ms": 1000 * (key.seq + 1), "session_id": session_of(key),
        "model": MODEL, "hw": HW, "fw": FW, "samples": samples_of(key, kind),
    }  # fmt: skip
    if kind == REFUSED:
        document["smuggled"] = mark_of(key)
    return json.dumps(document, separators=(",", ":")).encode()


def topic_of(key: Key, kind: str) -> str:
    return f"mc/v1/{key.device_id}/{stream_of(key, kind)}"


def ack_topic(device_id: str) -> str:
    return f"mc/v1/{device_id}/ack"
