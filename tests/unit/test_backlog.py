"""Each device has its turn: one that sends more than can be judged waits for itself, and keeps its order."""

import tempfile
from collections import Counter
from pathlib import Path

import hypothesis.strategies as st
import orjson
import pytest
from hypothesis import given, settings

from ingest import backlog, judgement, pipeline
from ingest.admit import fingerprint
from ingest.backlog import SHARE
from ingest.mqtt import Delivery
from schemas.topics import Stream
from tests.line import DEVICE, IN_MEMORY, START_MS, Line, deliver, message, pulse
from tests.unit.test_judgement import at, current, gaps, runtime

S = 1_000


def said_by(device: str, seq: int, **fields: float) -> Delivery:
    return deliver(Stream.CURRENT, message(Stream.CURRENT, seq, START_MS + 10 * seq, **fields), START_MS + 10 * seq, device)


def dangers_told(line: Line) -> set[str]:
    return {topic.split("/")[2] for topic, said in line.feed.said if topic.endswith("/alert") and said["event"] == "opened"}


def test_a_danger_behind_a_flood_is_told_in_the_turn_in_which_it_is_accepted(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        flood = [said_by("noisy", seq) for seq in range(3_000)]
        line.part(8, *flood[:2_900])
        assert line.journal.aside > 1_000
        line.feed.waiting.clear()
        line.part(1, said_by("quiet", 0, i_peak_ua=900.0))
        assert dangers_told(line) == {"quiet"}
        assert line.journal.aside > 1_000
        assert line.journal.ledger().balanced


def test_all_that_was_set_aside_is_processed_and_said_to_wait_until_then(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.part(4, *(said_by("noisy", seq) for seq in range(1_000)), *(said_by("other", seq) for seq in range(300)))
        assert line.core.backlog.of_whom.endswith("of them of noisy")
        assert sum(line.core.backlog.aside.values()) == line.journal.aside
        line.run()
        assert (line.core.backlog.aside, line.journal.aside, line.core.backlog.of_whom) == ({}, 0, "")
        assert len(line.waiting()) == 1_300
        assert line.core.devices["noisy"].accepted == 1_000


def test_a_device_whose_messages_wait_counts_as_heard(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.run(said_by("noisy", 0))
        line.part(1, *(said_by("noisy", seq) for seq in range(1, 500)))
        assert line.journal.aside > 200
        assert line.core.devices["noisy"].last_seen_ms == START_MS + 4_990


def test_those_with_little_set_aside_do_not_wait_for_those_with_much(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.part(4, *(said_by("noisy", seq) for seq in range(1_900)), *(said_by("brief", seq) for seq in range(SHARE + 5)))
        assert "brief" in line.core.backlog.aside
        line.part(1)
        assert "brief" not in line.core.backlog.aside
        assert line.core.backlog.aside["noisy"] > 1_000


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("aaaaaaaabbbcde"), max_size=40), min_size=1, max_size=8), st.integers(1, 6), st.integers(1, 4),
    st.lists(st.integers(0, 4), min_size=8, max_size=8),
)  # fmt: skip
def test_every_message_has_its_turn_once_and_a_device_keeps_its_order_over_deaths(
    batches: list[list[str]], most: int, share: int, turns: list[int]
) -> None:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as root, pytest.MonkeyPatch.context() as patch:
        patch.setattr(backlog, "TURN_MOST", most)
        patch.setattr(backlog, "SHARE", share)
        line = Line(Path(root) / "0")
        seqs: Counter[str] = Counter()
        for n, (batch, some) in enumerate(zip(batches, turns, strict=False)):
            for device in batch:
                line.feed.waiting.append(said_by(device, seqs[device]))
                seqs[device] += 1
            line.part(some)
            assert line.journal.ledger().balanced
            if some % 2:
                line, dead = line.die(Path(root) / f"{n + 1}"), line
                dead.journal.close()
                assert line.journal.ledger().balanced
        line.run()
        assert line.journal.ledger().inbox == line.journal.aside == 0
        stored = [(entry.device_id, orjson.loads(entry.payload)["seq"]) for entry in line.waiting()]
        for device, count in seqs.items():
            assert [seq for of, seq in stored if of == device] == list(range(count))
        line.journal.close()


def test_after_a_death_what_was_set_aside_goes_on_and_its_killer_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message that kills is far back among those that were set aside, of one device among several."""
    line = Line(tmp_path / "0")
    devices = ("a", "b", "c")
    line.part(2, *(said_by(device, seq) for seq in range(300) for device in devices))
    judged = type(line.core.acts._intake.desk).take

    def take(self: object, device_id: str, session: str, readings: list, hole: bool) -> list:
        if device_id == "b" and readings[0].seq == 200:
            raise MemoryError
        return judged(self, device_id, session, readings, hole)

    monkeypatch.setattr(judgement.Desk, "take", take)
    for life in range(1, 8):
        try:
            line.run()
            break
        except MemoryError:
            line, dead = line.die(tmp_path / str(life)), line
            dead.journal.close()
    else:
        pytest.fail("it dies of it again and again")
    assert line.reasons() == ["crash_suspect"]
    assert line.journal.ledger().balanced
    assert len(line.waiting()) == 899
    line.journal.close()


def test_the_end_does_not_wait_long_for_what_is_set_aside_and_the_next_start_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "END_S", 0.0)
    with Line(tmp_path) as line:
        line.feed.waiting.extend(said_by("noisy", seq) for seq in range(3_000))
        line.core.run()
        assert line.journal.processed_upto == 3_000
        assert line.journal.aside > 1_000
        line.restart()
        assert line.core.devices["noisy"].accepted == len(line.waiting()) == 3_000


def test_what_is_set_aside_is_not_pruned(tmp_path: Path) -> None:
    with Line(tmp_path) as line:
        line.part(2, *(said_by("noisy", seq) for seq in range(1_000)))
        with line.journal.step():
            line.core.settle(line.waiting(), [], fingerprint)
        with line.journal.step():
            assert line.journal.prune_raw(START_MS + 10**9, 10_000) == line.journal.first_unprocessed() - 1
        assert line.journal.aside > 300
        line.run()
        assert line.core.devices["noisy"].accepted == 1_000


def test_a_device_is_not_called_silent_while_its_messages_wait_and_others_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Line(tmp_path) as line:
        line.run(runtime(0, seq=0), *(current(s) for s in range(1, 11)))
        quiet = message(Stream.RUNTIME, 0, at(0), envelope_={"session_id": "s-9"}, run_state="running")
        line.run(deliver(Stream.RUNTIME, quiet, at(0), "quiet"))
        monkeypatch.setattr(backlog, "TURN_MOST", 10)
        monkeypatch.setattr(backlog, "SHARE", 2)
        line.part(1, *(current(s / 2, seq=s) for s in range(22, 900)), pulse(at(460)))
        line.part(3)
        assert line.core.observed_until_ms == at(460)
        assert line.core.backlog.aside
        assert {a["device_id"] for a in line.alerts(rule="telemetry-gap")} == {"quiet"}
        line.run()
        assert {a["device_id"] for a in line.alerts(rule="telemetry-gap")} == {"quiet"}


def test_a_silence_is_said_as_soon_as_what_waited_is_processed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Line(tmp_path) as line:
        line.run(runtime(0, seq=0), *(current(s) for s in range(1, 11)))
        monkeypatch.setattr(backlog, "TURN_MOST", 10)
        monkeypatch.setattr(backlog, "SHARE", 2)
        line.part(1, *(current(11 + s / 10, seq=s) for s in range(11, 300)), pulse(at(460)))
        line.part(3)
        assert line.core.observed_until_ms == at(460)
        assert line.core.backlog.aside
        assert [] == line.alerts(rule="telemetry-gap")
        line.run()
        assert ["open"] == [a["state"] for a in line.alerts(rule="telemetry-gap")]


# -- judged again, a piece at a time ------------------------------------------------------------------


def long_session(line: Line, seconds: int) -> Line:
    """Running, with one second missing near its beginning."""
    line.run(runtime(0, seq=0))
    for first in range(1, seconds, 200):
        line.run(*(current(s) for s in range(first, min(first + 200, seconds)) if s != 5))
    return line


def test_a_long_past_is_judged_again_in_pieces_between_which_others_are_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "AGAIN_MOST", 100)
    with Line(tmp_path) as line:
        long_session(line, 1_000)
        late = current(5, late_s=1_000, i_peak_ua=900.0)
        line.part(1, late)
        turns = 0
        while line.core._desk.is_late():
            turns += 1
            line.part(1, said_by(f"quiet-{turns}", 0, i_peak_ua=900.0))
            assert f"quiet-{turns}" in dangers_told(line)
        assert 8 <= turns <= 20
        assert [(a["onset_ms"] - START_MS) / S for a in line.alerts(rule="overcurrent-peak") if a["device_id"] == DEVICE] == [5]


def test_late_data_of_a_time_just_judged_again_is_judged_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "AGAIN_MOST", 100)
    with Line(tmp_path) as line:
        long_session(line, 1_000)
        line.part(3, current(5, late_s=1_000))
        assert line.core._desk.is_late()
        line.run(current(2.5, seq=2_000, late_s=1_001, i_peak_ua=900.0), current(900.5, seq=2_001, late_s=1_001, i_peak_ua=950.0))
        assert [(a["onset_ms"] - START_MS) / S for a in line.alerts(rule="overcurrent-peak")] == [2.5, 900.5]


def test_a_session_whose_past_is_being_read_again_is_not_judged_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before it had judged a long session again: the next worker begins anew, and says nothing untrue meanwhile."""
    monkeypatch.setattr(pipeline, "AGAIN_MOST", 100)
    with Line(tmp_path / "0") as line:
        long_session(line, 1_500)
        line.part(2, current(5, late_s=1_500, i_peak_ua=900.0))
        with line.die(tmp_path / "1") as later:
            later.part(4, current(1_500), pulse(at(1_501)))
            assert later.core._desk.is_late()
            later.run(pulse(at(1_510)))
            assert later.standing() == line.run(current(1_500), pulse(at(1_510))).standing() != []
            assert [e for e in later.events() if e[1] == "telemetry-gap"] == []
            later.run(pulse(at(1_700)))
            assert gaps(later) == [("open", 1_500, 1_515, None, None)]
