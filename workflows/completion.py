"""When a study counts as complete: evidence in, a decision in words out.

DICOM has no sign for "that was the last image of this study", so the node weighs what it knows:

- **quiet time**: nothing came for a while. Always counts in the end; it is the backstop.
- **release**: every association that brought images was released (A-RELEASE, PS3.8 section
  7.2). An accelerator, for senders that send a study over one association. An association that
  was aborted or lost says the opposite: the sender will come again with what is missing.
- **announced instances**: where images say how many belong to the study (0020,1208), a procedure
  step (MPPS) or a notification (IAN) lists them, or the PACS has them, the study is complete with
  the last of them, and is waited for longer while some are missing.

Everything here is pure: no clock, no database, no queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, NamedTuple

Ending = Literal["open", "released", "aborted", "lost"]

_SHORTEST_WAIT: Final = timedelta(milliseconds=100)


@dataclass(frozen=True, slots=True)
class Timing:
    """How long to wait, in seconds; the meaning of each is in ``default_node.yaml``."""

    quiet_seconds: float = 20.0
    after_release_seconds: float = 2.0
    open_association_seconds: float = 120.0
    expected_seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class AssociationEvidence:
    """What one association says about the study.

    Attributes
    ----------
    calling_ae_title
        Who sent.
    ending
        Whether it is open, or how it ended.
    last_received_at, ended_at
        Aware times; `ended_at` is None while it is open.
    quiet_seconds
        Quiet time set for this sender; None for the node's.
    release_completes
        Whether this sender's release means anything.
    """

    calling_ae_title: str
    ending: Ending
    last_received_at: datetime
    ended_at: datetime | None = None
    quiet_seconds: float | None = None
    release_completes: bool = True


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of a study that is being received.

    Attributes
    ----------
    instances
        How many different instances are here.
    last_received_at
        When the last data set of the study came, also if it was here before.
    associations
        Those that brought data sets since the study began to wait.
    expected
        How many instances the study should have; None where nobody said.
    in_progress
        Whether a procedure step of it is said to go on.
    complete_by
        The person who said that no more is to be waited for; empty where nobody did.
    """

    instances: int
    last_received_at: datetime
    associations: Sequence[AssociationEvidence] = ()
    expected: int | None = None
    in_progress: bool = False
    complete_by: str = ""


class Decision(NamedTuple):
    """Whether a study is complete, why, and when to look again if not."""

    complete: bool
    reason: str
    look_again_at: datetime


class _Wait(NamedTuple):
    until: datetime
    reason: str


def weigh(evidence: Evidence, timing: Timing, now: datetime) -> Decision:
    """Decide whether a study is complete.

    Parameters
    ----------
    evidence
        What is known.
    timing
        The node's times; senders may have their own quiet time.
    now
        Aware time. A clock that was set back only makes the study wait longer.

    Returns
    -------
    Decision
        `look_again_at` is when the answer changes unless something else comes in.
    """
    if evidence.complete_by:
        said = f"{evidence.complete_by} wants it to go on with what is here: {_count(evidence)}"
        return Decision(True, said, now)
    wait = (
        _going_on(evidence, timing)
        or _announced(evidence, timing)
        or _released(evidence, timing)
        or _quiet(evidence, timing)
    )
    if now >= wait.until:
        return Decision(True, wait.reason, now)
    # Seconds, not a time of day: the text is read in other time zones too.
    seconds = (wait.until - evidence.last_received_at).total_seconds()
    again = max(wait.until, now + _SHORTEST_WAIT)
    return Decision(False, _waiting_words(evidence, seconds), again)


def _going_on(evidence: Evidence, timing: Timing) -> _Wait | None:
    """Wait for a procedure step to end, but not for ever: its last message may never come."""
    if not evidence.in_progress:
        return None
    seconds = max(timing.expected_seconds, quiet_seconds(evidence, timing))
    until = evidence.last_received_at + timedelta(seconds=seconds)
    said = f"its procedure step never ended, and nothing more came for {seconds:g} s"
    return _Wait(until, f"{_count(evidence)} came; {said}")


def _announced(evidence: Evidence, timing: Timing) -> _Wait | None:
    """Use the announced number: complete with the last one, patient while some are missing."""
    if evidence.expected is None:
        return None
    here = f"{evidence.instances} of {evidence.expected} announced instances"
    if evidence.instances >= evidence.expected:
        until = evidence.last_received_at + timedelta(seconds=timing.after_release_seconds)
        return _Wait(until, f"{here} are here")
    seconds = max(timing.expected_seconds, quiet_seconds(evidence, timing))
    until = evidence.last_received_at + timedelta(seconds=seconds)
    return _Wait(until, f"only {here} came, and nothing more for {seconds:g} s")


def _released(evidence: Evidence, timing: Timing) -> _Wait | None:
    """Use the release of the associations, if it means anything here."""
    ended = [one.ended_at for one in evidence.associations if one.ended_at is not None]
    if not ended or len(ended) < len(evidence.associations):
        return None
    if any(not one.release_completes for one in evidence.associations):
        return None
    if _broken_off(evidence.associations):
        return None
    settled = max(*ended, evidence.last_received_at)
    senders = _names(evidence.associations)
    until = settled + timedelta(seconds=timing.after_release_seconds)
    quiet = _quiet(evidence, timing)
    if quiet.until < until:
        return quiet
    return _Wait(until, f"{senders} released the association after {_count(evidence)}")


def _quiet(evidence: Evidence, timing: Timing) -> _Wait:
    """Use the quiet time, which is longer while a sender holds its association."""
    seconds = quiet_seconds(evidence, timing)
    if any(one.ending == "open" for one in evidence.associations):
        seconds = max(seconds, timing.open_association_seconds)
    until = evidence.last_received_at + timedelta(seconds=seconds)
    return _Wait(until, f"nothing came for {seconds:g} s after {_count(evidence)}")


def quiet_seconds(evidence: Evidence, timing: Timing) -> float:
    """Return the quiet time of the slowest sender that took part."""
    own = [
        timing.quiet_seconds if one.quiet_seconds is None else one.quiet_seconds
        for one in evidence.associations
    ]
    return max(own, default=timing.quiet_seconds)


def _broken_off(associations: Sequence[AssociationEvidence]) -> list[AssociationEvidence]:
    """Return broken associations whose sender did not come back and end in order since."""
    return [
        one
        for one in associations
        if one.ending in ("aborted", "lost")
        and not any(
            later.ending == "released"
            and later.calling_ae_title == one.calling_ae_title
            and later.ended_at is not None
            and one.ended_at is not None
            and later.ended_at > one.ended_at
            for later in associations
        )
    ]


def _waiting_words(evidence: Evidence, seconds: float) -> str:
    """Say why the study still waits."""
    said = [f"{_count(evidence)} so far"]
    if evidence.expected is not None:
        said = [f"{evidence.instances} of {evidence.expected} announced instances so far"]
    if evidence.in_progress:
        said.append("its procedure step is in progress")
    holding = [one for one in evidence.associations if one.ending == "open"]
    broken = _broken_off(evidence.associations)
    if holding:
        said.append(f"{_names(holding)} still holds the association")
    elif broken:
        said.append(f"{_names(broken)} broke the association off and may come again")
    elif any(not one.release_completes for one in evidence.associations):
        said.append(f"more associations may follow from {_names(evidence.associations)}")
    elif evidence.associations:
        said.append(f"{_names(evidence.associations)} released the association")
    said.append(f"complete when nothing comes for {seconds:.3g} s")
    return "; ".join(said)


def _names(associations: Sequence[AssociationEvidence]) -> str:
    names = sorted({one.calling_ae_title for one in associations})
    return " and ".join(names)


def _count(evidence: Evidence) -> str:
    return "1 instance" if evidence.instances == 1 else f"{evidence.instances} instances"
