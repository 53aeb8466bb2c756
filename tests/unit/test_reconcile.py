"""What should be in the store against what is there, whatever the gaps."""

from types import SimpleNamespace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from ingest.dedupe import Boot, Intervals
from ingest.device import Device
from ingest.reconcile import Expected, _groups, _is_known, reconcile
from ingest.settings import Settings
from schemas.topics import Stream
from tests.line import DEVICE, START_MS, Line, deliver, message

keys = st.sets(st.tuples(st.integers(0, 3), st.integers(0, 1), st.one_of(st.integers(0, 40), st.integers(2**32 - 20, 2**32 - 1))))


@given(keys, keys)
def test_what_is_lost_and_what_is_unknown_is_the_difference_of_the_sets(expected: set, held: set) -> None:
    found = Expected(sorted(expected))
    unknown = {key for key in held if not found.find(*key)}
    for key in held:
        found.find(*key)  # a reading more of the same message makes no difference
    assert (unknown, set(found.not_found())) == (held - expected, expected - held)
    assert (found.count, found.lost) == (len(expected), len(expected - held))


@given(st.dictionaries(st.text("abc", max_size=3), st.integers(0, 60_000), max_size=12))
def test_devices_are_compared_together_up_to_a_bound_and_each_once(devices: dict[str, int]) -> None:
    groups = list(_groups(devices))
    assert [name for group in groups for name in group] == sorted(devices)
    assert all(len(group) == 1 or sum(devices[name] for name in group) <= 50_000 for group in groups)


def test_numbers_of_boots_that_have_been_given_up_are_not_called_unknown() -> None:
    device = Device("d", boots={1: Boot(seen=Intervals([0], [4]))})
    assert (_is_known(device, 1, 0, 4), _is_known(device, 1, 0, 5), _is_known(device, 2, 0, 0)) == (True, False, False)
    device.forgot_boots = True
    assert (_is_known(device, 1, 0, 5), _is_known(device, 2, 0, 0)) == (False, None)
    device.boots[1].partial = True
    assert (_is_known(device, 1, 0, 4), _is_known(device, 1, 0, 5)) == (True, None)
    assert _is_known(None, 1, 0, 4) is False


class Shelf:
    """A store that holds what it is given; while it is read, something else happens."""

    def __init__(self, held: list[tuple], meanwhile: Any) -> None:
        self._held, self._meanwhile = held, meanwhile

    def device_ids(self) -> list[str]:
        return sorted({device for device, *_ in self._held})

    def held(self, device_ids: list[str]) -> Any:
        self._meanwhile()
        return iter([each for each in self._held if each[0] in device_ids])


@pytest.mark.parametrize("stored", [0, 3, 6])
def test_what_is_accepted_and_stored_while_it_reads_makes_no_difference(tmp_path: Any, stored: int) -> None:
    def current(seq: int) -> Any:
        return deliver(Stream.CURRENT, message(Stream.CURRENT, seq, START_MS + seq), START_MS + seq)

    with Line(tmp_path) as line:
        line.run(*(current(seq) for seq in range(6))).settle_store(stored)

        def meanwhile() -> None:
            line.run(current(6), current(7)).settle_store(1)

        worker = SimpleNamespace(
            core=SimpleNamespace(devices=line.core.devices, clock=line.clock, ask=lambda work: work()),
            journal=line.journal, sink=Shelf([(DEVICE, 7, seq, False, False) for seq in range(8)], meanwhile), settings=Settings(_env_file=None),
        )  # fmt: skip
        found = reconcile(worker)
        assert (found["ok"], found["messages"], found["devices"]) == (True, stored, 1)
        worker.sink = Shelf([(DEVICE, 7, seq, False, seq == 1) for seq in (0, 1, 3, 9)], lambda: None)
        line.settle_store()
        found = reconcile(worker)
        assert (found["lost"], found["doubled"], found["spurious"]) == (5, 1, 1)
        assert [(d["kind"], d["seq"]) for some in found["differences"].values() for d in some] == [
            *(("lost", seq) for seq in (2, 4, 5, 6, 7)), ("doubled", 1), ("spurious", 9),
        ]  # fmt: skip


def test_of_very_many_differences_the_first_are_named_and_all_are_counted(tmp_path: Any) -> None:
    with Line(tmp_path) as line:
        line.run(*(deliver(Stream.CURRENT, message(Stream.CURRENT, seq, START_MS + seq), START_MS + seq) for seq in range(150))).settle_store()
        worker = SimpleNamespace(
            core=SimpleNamespace(devices=line.core.devices, clock=line.clock, ask=lambda work: work()),
            journal=line.journal, sink=Shelf([], lambda: None), settings=Settings(_env_file=None),
        )  # fmt: skip
        found = reconcile(worker)
        assert (found["lost"], len(found["differences"]["lost"]), found["ok"]) == (150, 100, False)
