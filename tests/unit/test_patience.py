"""When a broker is tried again, and when it looks as if somebody else had taken the session."""

import pytest

from ingest.patience import BRIEF_S, QUARREL, REFUSED, TAKEN_OVER, UNDISTURBED_S, Patience

LONG_S, CUT, NO = 60.0, 0x80, 0x87


def lived(patience: Patience, lasted_s: float, code: int = CUT) -> str:
    """A connection that was subscribed, and ended."""
    patience.subscribed()
    return patience.ended(code, lasted_s, stopping=False)


def test_the_first_connection_and_one_after_a_long_one_are_tried_at_once() -> None:
    patience = Patience()
    assert 0.0 == patience.delay_s()
    assert "" == lived(patience, LONG_S)
    assert 0.0 == patience.delay_s()


def test_a_broker_that_cannot_be_reached_is_tried_ever_more_slowly_and_at_once_after_it_was_there() -> None:
    patience = Patience()
    delays = [(patience.unreachable(), patience.delay_s())[1] for _ in range(9)]
    assert [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0] == delays
    lived(patience, LONG_S)
    assert 0.0 == patience.delay_s()


@pytest.mark.parametrize("code", sorted(REFUSED))
def test_a_broker_that_says_no_is_asked_again_only_after_a_while(code: int) -> None:
    patience = Patience()
    delays = [(patience.refused(code), patience.delay_s())[1] for _ in range(9)]
    assert [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0, 300.0] == delays
    patience.subscribed()
    assert 0.0 == patience.delay_s()


def test_a_failure_that_is_no_refusal_is_like_a_broker_that_cannot_be_reached() -> None:
    patience = Patience()
    patience.refused(0x88)  # the server is unavailable
    assert 0.5 == patience.delay_s()


def test_a_refused_subscription_and_a_connection_that_ends_with_a_no_are_refusals() -> None:
    patience = Patience()
    patience.not_granted()
    assert 5.0 == patience.delay_s()
    patience.ended(NO, None, stopping=False)
    assert (10.0, 1) == (patience.delay_s(), patience.failures)


def test_a_connection_that_ends_before_it_is_subscribed_is_a_failure_unless_it_was_ended_on_purpose() -> None:
    patience = Patience()
    patience.ended(CUT, None, stopping=True)
    assert (0, 0.0) == (patience.failures, patience.delay_s())
    patience.ended(CUT, None, stopping=False)
    assert (1, 0.5) == (patience.failures, patience.delay_s())


def test_who_was_taken_over_waits_the_longer_the_more_often_although_it_gets_in_each_time() -> None:
    patience = Patience()
    for times, delay_s in enumerate((5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0), start=1):
        assert "took its session" in lived(patience, LONG_S, TAKEN_OVER)
        assert (times, delay_s) == (patience.times_taken_over, patience.delay_s())


def test_a_session_that_was_undisturbed_for_long_ends_the_quarrel_and_not_the_count() -> None:
    patience = Patience()
    lived(patience, LONG_S, TAKEN_OVER)
    lived(patience, UNDISTURBED_S, CUT)
    assert 5.0 == patience.delay_s()
    lived(patience, UNDISTURBED_S + 1, CUT)
    assert (0.0, 1) == (patience.delay_s(), patience.times_taken_over)
    lived(patience, UNDISTURBED_S + 1, TAKEN_OVER)
    assert (5.0, 2) == (patience.delay_s(), patience.times_taken_over)


def test_brief_connections_in_a_row_slow_down_and_from_the_fourth_on_look_like_a_takeover() -> None:
    patience = Patience()
    seen = [(lived(patience, 1.0), patience.delay_s()) for _ in range(6)]
    assert [0.0, 1.0, 2.0, 4.0, 5.0, 5.0] == [delay_s for _, delay_s in seen]
    assert [False] * (QUARREL - 1) + [True] * 3 == ["another may have its name" in told for told, _ in seen]
    assert 0 == patience.times_taken_over, "it is a guess"


@pytest.mark.parametrize("calm", ["a long connection", "an end on purpose", "a broker that is away"])
def test_brief_connections_are_forgotten_after(calm: str) -> None:
    patience = Patience()
    for _ in range(QUARREL - 1):
        lived(patience, 1.0)
    if calm == "a long connection":
        lived(patience, BRIEF_S)
    elif calm == "an end on purpose":
        patience.subscribed()
        patience.ended(0, 1.0, stopping=True)
    else:
        patience.unreachable()
        assert 0.5 == patience.delay_s()
    assert ("", 0.0) == (lived(patience, 1.0), patience.delay_s())


def test_the_longest_of_the_reasons_to_wait_counts() -> None:
    patience = Patience()
    for _ in range(5):
        lived(patience, 1.0)
    patience.ended(CUT, None, stopping=False)
    assert (1, 5.0) == (patience.failures, patience.delay_s()), "brief connections, not the one failure"
    patience.refused(NO)
    patience.refused(NO)
    assert 10.0 == patience.delay_s()


def test_one_refusal_does_not_make_a_quarrel_short() -> None:
    patience = Patience()
    for _ in range(3):
        lived(patience, LONG_S, TAKEN_OVER)
    patience.refused(NO)
    assert 20.0 == patience.delay_s()
