"""Golden cases: what came in, and what must have become of it.

`<case>/input.jsonl`: one delivery a line, as {"stream" or "topic", "at_s", "received_s", "payload"}.
`payload` is the JSON of the message, or {"text": ...} for bytes that are none; {"pulse_s": ...}
says how far the line has heard. `<case>/expected.json`: alerts without their ids, in the order of
their onset, seconds since the case began; the count of messages to be stored; the rejections.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from ingest.mqtt import Delivery
from schemas.topics import Stream
from tests.line import START_MS, Line, deliver, pulse

HERE = Path(__file__).parent
CASES = sorted(path.parent for path in HERE.glob("*/input.jsonl"))


def delivery(line: str) -> Delivery:
    said = json.loads(line)
    if "pulse_s" in said:
        return pulse(START_MS + round(1000 * said["pulse_s"]))
    payload = said["payload"]
    raw = payload["text"].encode() if "text" in payload else json.dumps(payload).encode()
    where = said["topic"] if "topic" in said else Stream(said["stream"])
    return deliver(where, raw, START_MS + round(1000 * said["received_s"]), retained=said.get("retained", False))


def seconds(t_ms: int | None) -> float | None:
    return None if t_ms is None else (t_ms - START_MS) / 1000


def outcome(line: Line) -> dict[str, Any]:
    return {
        "alerts": [
            {
                "rule": a["rule"], "severity": a["severity"], "state": a["state"], "session": a["session_id"],
                "onset_s": seconds(a["onset_ms"]), "opened_s": seconds(a["opened_ms"]), "closed_s": seconds(a["closed_ms"]),
                "close_reason": a["close_reason"], "value": a["value"], "limit": round(a["limit"], 3), "unit": a["unit"],
                "from_rejected": a["from_rejected"],
            }
            for a in line.alerts()
            if a["state"] != "withdrawn"
        ],
        "stored": line.journal.ledger().outbox,
        "duplicate": line.journal.ledger().duplicate,
        "rejections": line.reasons(),
    }  # fmt: skip


def test_there_are_golden_cases() -> None:
    assert len(CASES) >= 5
    assert [path.name for path in HERE.iterdir() if path.is_dir() and path.name != "__pycache__" and path not in CASES] == []


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_a_golden_case_comes_to_what_is_written(case: Path, tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.one_by_one(delivery(text) for text in (case / "input.jsonl").read_text("utf-8").splitlines())
        assert outcome(line) == json.loads((case / "expected.json").read_text("utf-8"))
