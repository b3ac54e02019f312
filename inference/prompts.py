"""What the model is asked, word for word, and the answer it is made to give.

The chat template, the question pools and the white space are those of the published training and
of its demos. Questions of the text tasks end in the same request for masks as there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

SEG = "[SEG]"
IMAGE_START, IMAGE_CONTEXT, IMAGE_END = "<img>", "<IMG_CONTEXT>", "</img>"
USER, END, ASSISTANT = "<|user|>", "<|end|>", "<|assistant|>"
TURN_END = "<|im_end|>"
"""Qwen2's own end of a turn; a model may stop with it as well as with ``END``."""

REGION = "<region>"
"""Plain text of the region prompts, no token: the region itself is drawn on the image."""

PHRASE_START, PHRASE_END = "<p>", "</p>"
SPECIAL_TOKENS = (IMAGE_START, IMAGE_CONTEXT, IMAGE_END, SEG, USER, END, ASSISTANT)
"""Tokens of the small model's own tokenizer."""

TEMPLATE_TOKENS = (*SPECIAL_TOKENS, TURN_END, PHRASE_START, PHRASE_END, "<vp>", "</vp>")
"""Strings that mean something to a model and therefore may not stand in a user's words."""

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

MASKS_PLEASE: Final = (
    "Please respond with interleaved segmentation masks for the corresponding parts."
)
DISEASE_QUESTION: Final = f"Can we observe any signs of abnormality? {MASKS_PLEASE}"
ANATOMY_QUESTION: Final = "Can we observe any signs of abnormality in {anatomy}? " + MASKS_PLEASE
REGION_QUESTION: Final = f"What is the {REGION} in the picture?"
NONE_LISTED: Final = "none of the listed targets"
"""What the small model says of a region that shows nothing it knows."""
REGION_REPORT_QUESTION: Final = (
    f"Can you provide me with a detailed description of the region in the picture marked by "
    f"{REGION}?"
)
# The spelling is that of the published training: a model answers best to what it was taught.
REPORT_QUESTION: Final = f"Could you diagnosis the abnormality in this image? {MASKS_PLEASE}"

MAX_TARGET_LENGTH = 64
MAX_QUESTION_LENGTH = 500
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ,'()/-]*")


@dataclass(frozen=True, slots=True)
class Whitespace:
    """Line breaks of the template, which the published training and its demos place differently.

    Attributes
    ----------
    after_image
        Between image and question: in all of the training, in the demos only for regions.
    before_answer
        Between the end of the question and the assistant's mark: always when asking, not always
        in the training.
    """

    after_image: bool = False
    before_answer: bool = True


AS_IN_DEMOS: Final = Whitespace()


@dataclass(frozen=True, slots=True)
class TargetPrompt:
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


def clean_question(question: str) -> str:
    """Normalise white space and check a question in free words.

    Raises
    ------
    ValueError
        When it is empty, too long, or holds a token of the template or a control character.
    """
    words = " ".join(question.split())
    if not words:
        raise ValueError("the question is empty")
    if len(words) > MAX_QUESTION_LENGTH:
        raise ValueError(
            f"question of {len(words)} characters: at most {MAX_QUESTION_LENGTH} are allowed"
        )
    lower = words.lower()
    held = [token for token in TEMPLATE_TOKENS if token.lower() in lower]
    if held or "<|" in words:
        raise ValueError(
            f"the question holds {held[0] if held else '<|'}, which has a meaning of its own to "
            "the model; ask in plain words"
        )
    if not words.isprintable():
        raise ValueError("the question holds characters that cannot be printed")
    return words


def chat(
    question: str, image_tokens: int, whitespace: Whitespace = AS_IN_DEMOS, images: int = 1
) -> str:
    """Full text of a question up to where the answer begins.

    Parameters
    ----------
    image_tokens
        Of each image.
    images
        Slices that the model is shown, each in a block of its own, one under the other.
    """
    block = IMAGE_START + IMAGE_CONTEXT * image_tokens + IMAGE_END
    shown = "\n".join([block] * images)
    after_image = "\n" if whitespace.after_image else ""
    before_answer = "\n" if whitespace.before_answer else ""
    return f"{USER}\n{shown}{after_image}{question}{END}{before_answer}{ASSISTANT}\n"


def forced_chat(
    question: str, image_tokens: int, whitespace: Whitespace = AS_IN_DEMOS, images: int = 1
) -> str:
    """Full text up to the ``[SEG]`` of the forced answer.

    Nothing after ``[SEG]`` can change its state in a causal model, so the text ends there.
    """
    answer = FORCED_ANSWER[: FORCED_ANSWER.index(SEG) + len(SEG)]
    return chat(question, image_tokens, whitespace, images) + answer
