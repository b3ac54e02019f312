from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.states import (
    END_STATES,
    LIVE_STATES,
    REOPENABLE_STATES,
    RESTING_STATE_OF,
    RESTING_STATES,
    IllegalTransition,
    JobState,
    allowed,
    require_allowed,
)


def test_the_way_of_a_study_is_open() -> None:
    way = [
        JobState(name)
        for name in (
            "received waiting queued preparing inferring encoding validating delivering "
            "confirming delivered"
        ).split()
    ]
    for origin, target in pairwise(way):
        assert allowed(origin, target), (origin, target)


@given(st.sampled_from(sorted(LIVE_STATES)), st.sampled_from(list(JobState)))
def test_no_stage_is_skipped(origin: JobState, target: JobState) -> None:
    order = list(JobState)
    skips = target in LIVE_STATES and order.index(target) > order.index(origin) + 1
    assert not (skips and allowed(origin, target))


@given(st.sampled_from(sorted(LIVE_STATES)))
def test_every_live_state_can_fail_be_cancelled_and_start_its_step_anew(state: JobState) -> None:
    assert allowed(state, JobState.FAILED)
    assert allowed(state, JobState.CANCELLED)
    assert RESTING_STATE_OF[state] in RESTING_STATES
    assert allowed(state, RESTING_STATE_OF[state])


def test_what_was_delivered_or_put_aside_stays_so() -> None:
    for end in END_STATES - REOPENABLE_STATES:
        assert not any(allowed(end, target) for target in JobState)


def test_a_way_that_does_not_exist_raises() -> None:
    with pytest.raises(IllegalTransition, match="cannot go from waiting to delivered"):
        require_allowed(JobState.WAITING, JobState.DELIVERED)
