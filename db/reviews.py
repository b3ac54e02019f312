"""What people think of findings: their verdicts, and how often they agree with the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.models import FindingRecord, Job
from db.models_reader import Review, Verdict

__all__ = [
    "Agreement",
    "Review",
    "ReviewError",
    "Verdict",
    "add_review",
    "agreement",
    "edited_findings",
    "last_reviews",
    "reviewed_findings",
    "reviewed_jobs",
]


class ReviewError(Exception):
    """The verdict cannot be kept; the text is a sentence."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How people judged the findings of one target.

    Attributes
    ----------
    target
        As on the model card.
    accepted, edited, rejected
        Findings by their last verdict.
    mean_dice
        Of the edited masks with the model's, 0..1; None without any.
    """

    target: str
    accepted: int
    edited: int
    rejected: int
    mean_dice: float | None

    @property
    def total(self) -> int:
        """Findings that were judged."""
        return self.accepted + self.edited + self.rejected

    @property
    def share(self) -> float:
        """Part of the findings that were accepted as they were, 0..1."""
        return self.accepted / self.total if self.total else 0.0


def add_review(
    session: Session,
    *,
    job_id: int,
    position: int,
    verdict: Verdict,
    account: str,
    now: datetime,
    remark: str = "",
    dice: float | None = None,
    edits: Mapping[str, Sequence[int]] | None = None,
) -> Review:
    """Keep a verdict; earlier ones of the same finding stay as history.

    Raises
    ------
    ReviewError
        There is no such finding (any more).
    """
    finding = session.scalars(
        select(FindingRecord).where(
            FindingRecord.job_id == job_id, FindingRecord.position == position
        )
    ).one_or_none()
    if finding is None:
        raise ReviewError("This finding is not there any more; reload the page.")
    review = Review(
        job_id=job_id,
        position=position,
        target=finding.target,
        presence=finding.presence,
        verdict=verdict,
        remark=remark,
        account=account,
        at=now,
        model_digest=session.get_one(Job, job_id).model_digest,
        dice=dice,
        edits=None if edits is None else {key: list(runs) for key, runs in edits.items()},
    )
    session.add(review)
    session.flush()
    return review


def last_reviews(session: Session, job_id: int) -> dict[int, Review]:
    """Return the verdict that counts, by position of the finding."""
    rows = session.scalars(select(Review).where(Review.job_id == job_id).order_by(Review.id))
    return {review.position: review for review in rows}


def edited_findings(session: Session, job_id: int) -> dict[int, Review]:
    """Return the edits that count, by position of the finding."""
    return {
        position: review
        for position, review in last_reviews(session, job_id).items()
        if review.verdict is Verdict.EDITED
    }


def agreement(session: Session) -> list[Agreement]:
    """Return how people agree with the model, target by target."""
    last = select(func.max(Review.id)).group_by(Review.job_id, Review.position)
    rows = session.execute(
        select(Review.target, Review.verdict, func.count(), func.avg(Review.dice))
        .where(Review.id.in_(last))
        .group_by(Review.target, Review.verdict)
    )
    counts: dict[str, dict[Verdict, tuple[int, float | None]]] = {}
    for target, verdict, count, dice in rows:
        counts.setdefault(target, {})[verdict] = (count, dice)
    return [
        Agreement(
            target,
            accepted=found.get(Verdict.ACCEPTED, (0, None))[0],
            edited=found.get(Verdict.EDITED, (0, None))[0],
            rejected=found.get(Verdict.REJECTED, (0, None))[0],
            mean_dice=found.get(Verdict.EDITED, (0, None))[1],
        )
        for target, found in sorted(counts.items())
    ]


def reviewed_jobs(session: Session) -> list[int]:
    """Return the jobs that somebody judged, oldest first."""
    return list(session.scalars(select(Review.job_id).distinct().order_by(Review.job_id)))


def reviewed_findings(session: Session) -> int:
    """Count the findings that somebody judged."""
    judged = select(Review.job_id, Review.position).distinct().subquery()
    return session.execute(select(func.count()).select_from(judged)).scalar_one()


def review_as_json(review: Review) -> dict[str, Any]:
    """Tell a verdict, ready for `json.dumps`; the edits stay out."""
    return {
        "verdict": str(review.verdict),
        "remark": review.remark,
        "account": review.account,
        "at": review.at.isoformat(timespec="seconds"),
        "dice": review.dice,
        "edited_frames": sorted(int(frame) for frame in review.edits or {}),
    }
