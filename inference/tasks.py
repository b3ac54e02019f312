"""Prompts: what the model is asked, word for word, and the answer it is made to give.

The wording and the chat template are those of the published training (see the reference's
``phi3_chat`` template and its segmentation question pool).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SEG = "[SEG]"
IMAGE_START, IMAGE_CONTEXT, IMAGE_END = "<img>", "<IMG_CONTEXT>", "</img>"
USER, END, ASSISTANT = "<|user|>", "<|end|>", "<|assistant|>"
SPECIAL_TOKENS = (IMAGE_START, IMAGE_CONTEXT, IMAGE_END, SEG, USER, END, ASSISTANT)
FORCED_ANSWER = f"It is {SEG}."

WORDINGS = (
    "Please segment {phrase}.",
    "Can you segment the {phrase}?",
    "What is {phrase}? Please respond with segmentation mask.",
    "What is {phrase}? Please output segmentation mask.",
    "Could you provide a segmentation mask for the {phrase}?",
    "Please identify and segment the {phrase}.",
    "Where is the {phrase}? Please respond with a segmentation mask.",
    "Can you highlight the {phrase} with a segmentation mask?",
)
"""Eight wordings of the published training; the first is the one that the demos use."""

MAX_TARGET_LENGTH = 64
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ,'()/-]*")


@dataclass(frozen=True, slots=True)
class SegmentationTask:
    """Ask for one target in images of one modality, both in words."""

    target: str
    modality: str

    @property
    def phrase(self) -> str:
        """The words that the mask speaks of."""
        return f"{self.target} in {self.modality}"

    @property
    def prompt(self) -> str:
        """The question, as the model is given it."""
        return WORDINGS[0].format(phrase=self.phrase)


def clean_target(target: str) -> str:
    """Normalise white space and check that a target is plain words.

    Raises
    ------
    ValueError
        When the name is empty, too long, or holds anything but words: template tokens such as
        ``[SEG]`` or ``<img>`` would change what the model is asked.
    """
    words = " ".join(target.split())
    if len(words) > MAX_TARGET_LENGTH:
        raise ValueError(
            f"target of {len(words)} characters: at most {MAX_TARGET_LENGTH} are allowed"
        )
    if not _PLAIN.fullmatch(words):
        raise ValueError(f"target {words!r} is not plain words (letters, digits, space, ,'()/-)")
    return words


def chat(question: str, image_tokens: int) -> str:
    """Full text up to the ``[SEG]`` of the forced answer.

    Nothing after ``[SEG]`` can change its state in a causal model, so the text ends there.
    """
    image = IMAGE_START + IMAGE_CONTEXT * image_tokens + IMAGE_END
    answer = FORCED_ANSWER[: FORCED_ANSWER.index(SEG) + len(SEG)]
    return f"{USER}\n{image}{question}{END}\n{ASSISTANT}\n{answer}"


def present_sentence(target: str, modality: str, kind: str) -> str:
    """State a found target; ``kind`` is ``series`` or ``image``."""
    return f"{_capital(target)} seen in this {modality} {kind}."


def absent_sentence(target: str, kind: str) -> str:
    """State that a target was not found."""
    return f"No {target} seen in this {kind}."


def uncertain_sentence(target: str, modality: str, kind: str) -> str:
    """State that a target may be there; a reader decides."""
    return f"Possible {target} in this {modality} {kind}; to be confirmed by a reader."


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]
