"""When a study counts as complete."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from workflows.completion import AssociationEvidence, Ending, Evidence, Timing, weigh

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TIMING = Timing(
    quiet_seconds=20, after_release_seconds=2, open_association_seconds=120, expected_seconds=600
)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def association(
    ending: Ending, *, last: float = 0, ended: float | None = None, **changes: object
) -> AssociationEvidence:
    values = {
        "calling_ae_title": "CT1",
        "ending": ending,
        "last_received_at": at(last),
        "ended_at": None if ended is None else at(ended),
    }
    return AssociationEvidence(**(values | changes))  # type: ignore[arg-type]


def moment_of_completion(evidence: Evidence) -> float:
    """Return after how many seconds the study counts as complete, by looking when told to."""
    now = START
    for _ in range(100):
        decision = weigh(evidence, TIMING, now)
        if decision.complete:
            return (now - START).total_seconds()
        assert decision.look_again_at > now
        now = decision.look_again_at
    raise AssertionError("never complete")


def test_quiet_time_is_the_backstop() -> None:
    evidence = Evidence(65, at(0))
    early = weigh(evidence, TIMING, at(19))
    assert not early.complete
    assert early.look_again_at == at(20)
    assert early.reason == "65 instances so far; complete when nothing comes for 20 s"
    done = weigh(evidence, TIMING, at(20))
    assert done.complete
    assert done.reason == "nothing came for 20 s after 65 instances"


def test_release_is_an_accelerator() -> None:
    evidence = Evidence(65, at(0), [association("released", ended=1)])
    assert moment_of_completion(evidence) == 3
    assert "CT1 released the association" in weigh(evidence, TIMING, at(3)).reason


def test_an_abort_is_not_a_release() -> None:
    for ending in ("aborted", "lost"):
        evidence = Evidence(65, at(0), [association(ending, ended=1)])
        assert moment_of_completion(evidence) == 20
        assert "may come again" in weigh(evidence, TIMING, at(3)).reason


def test_a_sender_that_came_back_and_ended_in_order_counts() -> None:
    evidence = Evidence(
        65, at(8), [association("aborted", ended=1), association("released", last=8, ended=9)]
    )
    assert moment_of_completion(evidence) == 11


def test_another_senders_release_does_not_mend_an_abort() -> None:
    evidence = Evidence(
        65,
        at(8),
        [
            association("aborted", ended=1),
            association("released", last=8, ended=9, calling_ae_title="CT2"),
        ],
    )
    assert moment_of_completion(evidence) == 28


def test_a_person_may_say_that_no_more_is_to_be_waited_for() -> None:
    evidence = Evidence(3, at(0), expected=5, in_progress=True, complete_by="ada")
    decision = weigh(evidence, TIMING, at(1))
    assert decision.complete
    assert decision.reason == "ada wants it to go on with what is here: 3 instances"


def test_an_open_association_makes_the_quiet_time_longer_but_not_endless() -> None:
    evidence = Evidence(
        65, at(0), [association("released", ended=1), association("open", calling_ae_title="CT2")]
    )
    assert moment_of_completion(evidence) == 120
    assert "CT2 still holds the association" in weigh(evidence, TIMING, at(3)).reason


def test_senders_have_their_own_times() -> None:
    slow = association("released", ended=1, quiet_seconds=60, release_completes=False)
    assert moment_of_completion(Evidence(1, at(0), [slow])) == 60
    assert moment_of_completion(Evidence(1, at(0), [association("aborted", ended=1), slow])) == 60


def test_a_quick_quiet_time_wins_over_the_release() -> None:
    quick = association("released", ended=4, quiet_seconds=5)
    assert moment_of_completion(Evidence(1, at(0), [quick])) == 5


def test_announced_instances() -> None:
    released = [association("released", ended=1)]
    assert moment_of_completion(Evidence(65, at(0), released, expected=65)) == 2
    missing = Evidence(64, at(0), released, expected=65)
    assert moment_of_completion(missing) == 600
    assert "64 of 65 announced" in weigh(missing, TIMING, at(30)).reason
    assert "only 64 of 65" in weigh(missing, TIMING, at(600)).reason


def test_a_clock_that_was_set_back_only_waits_longer() -> None:
    decision = weigh(Evidence(1, at(0)), TIMING, at(-3600))
    assert not decision.complete
    assert decision.look_again_at == at(20)


ENDINGS: tuple[Ending, ...] = ("open", "released", "aborted", "lost")


@st.composite
def evidences(draw: st.DrawFn) -> Evidence:
    associations = []
    for _ in range(draw(st.integers(0, 4))):
        ending = draw(st.sampled_from(ENDINGS))
        last = draw(st.integers(0, 100))
        ended = None if ending == "open" else last + draw(st.integers(0, 30))
        associations.append(
            association(
                ending,
                last=last,
                ended=ended,
                calling_ae_title=draw(st.sampled_from(["A", "B"])),
                quiet_seconds=draw(st.none() | st.floats(0.1, 100)),
                release_completes=draw(st.booleans()),
            )
        )
    latest = max((one.last_received_at for one in associations), default=START)
    return Evidence(draw(st.integers(1, 500)), latest, associations, draw(st.none() | st.just(250)))


@given(evidences(), st.floats(0, 2000))
def test_the_decision_is_monotonic_and_always_ends(evidence: Evidence, seconds: float) -> None:
    """Once complete it stays so; the time to look again is when it becomes so, and not sooner."""
    decision = weigh(evidence, TIMING, at(seconds))
    assert decision.reason
    if decision.complete:
        assert weigh(evidence, TIMING, at(seconds + 1)).complete
        return
    again = decision.look_again_at
    assert again > at(seconds)
    assert weigh(evidence, TIMING, again).complete
    before = weigh(evidence, TIMING, max(at(seconds), again - timedelta(milliseconds=200)))
    assert not before.complete
    assert again <= evidence.last_received_at + timedelta(seconds=600)
