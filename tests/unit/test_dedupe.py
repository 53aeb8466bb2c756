"""What has been seen is exact: intervals behave like a set of numbers."""

from collections.abc import Iterable
from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import given

from ingest import dedupe
from ingest.dedupe import ACK_RANGES, Boot, Intervals, TooManyGaps

numbers = st.lists(st.integers(0, 60) | st.integers(4_294_967_290, 4_294_967_295), max_size=80)


def holes_of(model: set[int], upto: int = 61) -> set[int]:
    return set(range(max((n for n in model if n <= upto), default=-1) + 1)) - model


@given(numbers)
def test_intervals_are_a_set(added: list[int]) -> None:
    intervals, model = Intervals(), set[int]()
    for number in added:
        assert intervals.add(number) == (number not in model)
        model.add(number)
        assert intervals.highest == max(model)
        assert intervals.missing() == max(model) + 1 - len(model)
    assert {n for n in [*range(62), *range(4_294_967_288, 4_294_967_297)] if n in intervals} == model
    assert intervals.starts == sorted(n for n in model if n - 1 not in model)
    assert intervals.ends == sorted(n for n in model if n + 1 not in model)


@given(numbers)
def test_holes_are_what_lacks_below_the_highest(added: list[int]) -> None:
    intervals = Intervals()
    for number in added:
        intervals.add(number)
    every = intervals.holes()
    assert sum(b - a + 1 for a, b in every) == intervals.missing()
    assert all(b + 1 < c for (_, b), (c, _) in pairwise(every))
    small = {n for a, b in every for n in range(a, min(b, 61) + 1)}
    beyond = any(n > 61 for n in added)
    assert small == (set(range(62)) - set(added) if beyond else holes_of(set(added)))


def test_nothing_lacks_of_nothing() -> None:
    assert (Intervals().highest, Intervals().missing(), Intervals().holes(), 0 in Intervals()) == (-1, 0, [], False)


def test_more_gaps_than_are_tracked_are_refused_and_change_nothing() -> None:
    intervals = Intervals()
    for number in range(dedupe.MOST_INTERVALS):
        assert intervals.add(2 * number)
    before = list(intervals.starts), list(intervals.ends)
    with pytest.raises(TooManyGaps):
        intervals.add(2 * dedupe.MOST_INTERVALS)
    assert (intervals.starts, intervals.ends) == before
    assert intervals.add(1)  # what closes a gap is still taken
    assert intervals.add(2 * dedupe.MOST_INTERVALS)


def boot_with(held: Iterable[int]) -> Boot:
    boot = Boot()
    for number in held:
        boot.held.add(number)
    return boot


def covered_by(upto: int, missing: list[tuple[int, int]]) -> set[int]:
    return set(range(upto + 1)) - {n for a, b in missing for n in range(a, b + 1)}


@given(st.data(), st.sets(st.integers(0, 150), min_size=1) | st.just(set(range(0, 400, 3))) | st.just(set(range(5, 200, 2))))
def test_durable_acknowledgements_promise_what_was_heard_and_nothing_that_is_not_held(data: st.DataObject, held: set[int]) -> None:
    heard = data.draw(st.sets(st.sampled_from(sorted(held)), min_size=1))
    boot = boot_with(held)
    answers = boot.durable(heard)
    promised = [covered_by(*answer) for answer in answers]
    assert heard <= set().union(*promised) <= held
    assert all(len(missing) <= ACK_RANGES for _, missing in answers)
    assert all(any(seq in covered for seq in heard) for covered in promised)
    if len(boot.held.holes()) <= ACK_RANGES:
        assert [held] == promised


def test_holes_beyond_32_are_told_one_by_one_around_what_was_heard_and_before_that_as_one() -> None:
    boot = boot_with(range(0, 200, 2))
    first = (64, [(n, n) for n in range(1, 64, 2)])
    second = (126, [(1, 63), *((n, n) for n in range(65, 126, 2))])
    last = (198, [(1, 187), *((n, n) for n in range(189, 198, 2))])
    assert [first] == boot.durable([0])
    assert [first, second, last] == boot.durable([198, 62, 64])
    assert [] == boot.durable([])


def test_of_nothing_nothing_is_promised() -> None:
    assert [(-1, [])] == Boot().durable([])


@given(st.sets(st.integers(0, 120), min_size=1), st.integers(0, 120))
def test_a_recent_hole_is_one_shortly_before_a_message(held: set[int], near: int) -> None:
    """Of a boot that was heard from its beginning; one joined midway has no hole at its start."""
    held = held | {0, near}
    boot = Boot()
    for number in held:
        boot.held.add(number)
    begins = max(n for n in held if n <= near and n - 1 not in held)  # of the unbroken run that ends at `near`
    assert boot.recent_hole(near) == (begins > 0 and begins > near - 32)


@pytest.mark.parametrize(("first", "expected"), [(0, False), (1, True), (32, True), (33, False), (5_000, False)])
def test_a_boot_that_is_joined_midway_has_no_hole_at_its_start(first: int, expected: bool) -> None:
    boot = Boot()
    boot.held.add(first)
    assert boot.recent_hole(first) == expected
