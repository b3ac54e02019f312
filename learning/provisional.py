"""A card for measuring: here alone may be asked what a model's own card does not list."""

from __future__ import annotations

from inference.card import CardTarget, Interval, MeasuredScore, ModelCard, PresenceCalibration

_NOTHING_MEASURED = MeasuredScore(
    dice=0.0,
    dice_interval=Interval(low=0.0, high=0.0),
    images=1,
    groups=1,
    floor=0.0,
    dice_shifted=0.0,
    floor_shifted=0.0,
    presence_auc=0.0,
    negatives=0,
    negatives_own=0,
    sensitivity=0.0,
    specificity=0.0,
)


def provisional(card: ModelCard) -> ModelCard:
    """Return a card that lists all that the given one only names, with the object score as it is.

    Present from an object score of 0 on, as SAM 2 has it; nothing is uncertain. Never written
    beside a model: its figures are placeholders.
    """
    named = tuple(
        CardTarget(
            name=item.name,
            modality=item.modality,
            score=_NOTHING_MEASURED,
            presence=PresenceCalibration(slope=1.0, offset=0.0, absent_below=0.5, present_from=0.5),
        )
        for item in card.not_listed
        if card.target(item.modality, item.name) is None
        and card.modality(item.modality) is not None
    )
    return card.model_copy(update={"targets": (*card.targets, *named), "not_listed": ()})
