"""A list of known devices: what others send is kept apart and judged all the same, and the list may change."""

import os
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from ingest.errors import Mistake
from ingest.registry import Registry, read_registry
from schemas.topics import Stream, is_identifier
from tests.line import DEVICE, START_MS, Line, deliver, message, pulse


class KnownLine(Line):
    """A line whose registry the test sets."""

    def knowing(self, *known: str) -> "KnownLine":
        self.core._intake.registry = frozenset(known)
        return self


def test_only_what_known_devices_send_is_stored(tmp_path: Path) -> None:
    with KnownLine(tmp_path).knowing(DEVICE) as line:
        line.run(deliver(Stream.CURRENT, message(Stream.CURRENT, 0)), deliver(Stream.CURRENT, message(Stream.CURRENT, 0), device="tone-2"))
        assert [DEVICE] == [entry.device_id for entry in line.waiting()]
        (entry,) = line.journal.quarantine()
        assert ("unknown_device", "tone-2", "mc/v1/tone-2/current") == (entry["reason"], entry["device_id"], entry["topic"])
        assert line.journal.ledger().balanced
        assert line.last_ack("tone-2") == {"boot_id": 7, "upto": 0, "missing": []}, "it is on our disk, and need not be sent for ever"


def test_the_danger_in_an_unknown_devices_message_is_judged(tmp_path: Path) -> None:
    with KnownLine(tmp_path).knowing() as line:
        line.run(deliver(Stream.CURRENT, message(Stream.CURRENT, 0, i_peak_ua=1_400.0, v_peak_mv=11_200.0)), pulse(START_MS + 5_000))
        assert ("overcurrent-peak", "critical") in {(a["rule"], a["severity"]) for a in line.alerts(device_id=DEVICE)}
        assert ["unknown_device"] == line.reasons()


@pytest.mark.parametrize(("topic", "reason"), [("mc/v1/tone 2/current", "topic_invalid"), ("mc/v1/tone-2/gossip", "unknown_device"), ("x", "topic_invalid")])
def test_a_topic_that_names_no_device_is_wrong_and_not_unknown(tmp_path: Path, topic: str, reason: str) -> None:
    with KnownLine(tmp_path).knowing(DEVICE) as line:
        assert [reason] == line.run(deliver(topic, message(Stream.CURRENT, 0))).reasons()


def test_a_device_added_later_is_stored_from_then_on(tmp_path: Path) -> None:
    with KnownLine(tmp_path).knowing() as line:
        line.run(deliver(Stream.CURRENT, message(Stream.CURRENT, 0)))
        line.knowing(DEVICE).run(deliver(Stream.CURRENT, message(Stream.CURRENT, 1)))
        assert (1, ["unknown_device"]) == (len(line.waiting()), line.reasons())
        line.run(deliver(Stream.CURRENT, message(Stream.CURRENT, 0)))
        assert 2 == len(line.waiting()), "the device sends again what was refused: it counts as new"


# -- the file -----------------------------------------------------------------------------------------


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    "text",
    ["a-1\nB_2\n", '{"a-1": {"sha256": "0", "revoked_ms": null}, "B_2": {"revoked_ms": 0}, "c-3": {"revoked_ms": 17}}', "\n# the fleet\n a-1 \r\n\r\nB_2", "\ufeffa-1\nB_2\n", '{"a-1": "x", "B_2": {"sha256": "y"}}', " \n{\"B_2\":0,\"a-1\":0}\n"],
    ids=["lines", "a register", "comments", "byte order mark", "JSON", "JSON with spaces"],
)  # fmt: skip
def test_a_registry_is_a_list_of_lines_or_the_keys_of_an_object(tmp_path: Path, text: str) -> None:
    assert {"a-1", "B_2"} == read_registry(written(tmp_path / "known", text))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a-1\ntone 2\n", "line 2: 'tone 2'"), ("a" * 65, "line 1"), ("a-\u0661", "line 1"), (b"a-1\xff", "UTF-8"), ('{"a-1": ', "JSON"),
        ('{"a/1": 0}', "a key: 'a/1'"), ('["a-1"]', "line 1"), ("a-1,b-2", "line 1"), ("\x1b[31m", "line 1"), ("{" * 100_000, "JSON"),
    ],
)  # fmt: skip
def test_what_is_no_registry_is_one_sentence_with_its_place(tmp_path: Path, text: str | bytes, said: str) -> None:
    path = written(tmp_path / "known", text)
    with pytest.raises(Mistake) as told:
        read_registry(path)
    assert str(path) in str(told.value) and said in str(told.value)
    assert str(told.value).isprintable()


def test_a_registry_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(Mistake, match="MICROCURRENT_REGISTRY_FILE"):
            Registry(path)


@given(text=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_file_is_a_registry_or_a_mistake(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    path = written(tmp_path_factory.getbasetemp() / "any-registry", text)
    try:
        found = read_registry(path)
    except Mistake as mistake:
        assert str(mistake).isprintable()
    else:
        assert all(is_identifier(device_id) for device_id in found)


def test_a_changed_file_is_taken_at_the_second_look_that_finds_it_the_same(tmp_path: Path) -> None:
    path = written(tmp_path / "known", "a-1\n")
    registry = Registry(path, always=["ingest-1"])
    assert {"a-1", "ingest-1"} == registry.known
    written(path, "a-1\nb-")  # half of what is being written
    registry.look()
    assert {"a-1", "ingest-1"} == registry.known
    written(path, "a-1\nb-2\n")
    registry.look()
    assert "b-2" not in registry
    registry.look()
    assert {"a-1", "b-2", "ingest-1"} == registry.known


def test_a_file_that_has_become_unusable_changes_nothing_until_it_is_mended(tmp_path: Path) -> None:
    path = written(tmp_path / "known", "a-1\n")
    registry = Registry(path)
    for spoil in (lambda: path.write_text("no id\n"), path.unlink):
        spoil()
        registry.look()
        registry.look()
        assert {"a-1"} == registry.known
    written(tmp_path / "new", "b-2\n")
    os.replace(tmp_path / "new", path)
    registry.look()
    registry.look()
    assert {"b-2"} == registry.known
