"""Conditions on DICOM attributes, as they stand under ``when`` in ``rules.yaml``.

Matching is forgiving where DICOM is untidy: capitals do not matter, spaces around a value do not
matter, an attribute with several values fits when one of them does, and an absent or empty
attribute fits nothing but ``{present: false}`` and ``{none_of: [...]}``.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError
from pydicom import Dataset
from pydicom.datadict import keyword_dict
from pydicom.multival import MultiValue

_SHOWN_VALUES: Final = 3


class Condition(BaseModel):
    """Base of the conditions that are written as ``{...}``."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Range(Condition):
    """A number between two limits, both included; one of them may be left out."""

    at_least: Annotated[float, Field(strict=True)] | None = None
    at_most: Annotated[float, Field(strict=True)] | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> Range:
        if self.at_least is None and self.at_most is None:
            mend = "write at_least, at_most or both"
            raise PydanticCustomError("range", "has no limit", {"mend": mend})
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            mend = "exchange the two numbers"
            text = "nothing can lie between these limits"
            raise PydanticCustomError("range", text, {"mend": mend})
        return self

    def fits(self, values: Sequence[str]) -> bool:
        """Say whether one of the values is a number between the limits."""
        return any(self._holds(value) for value in values)

    def _holds(self, value: str) -> bool:
        try:
            number = float(value)
        except ValueError:
            return False
        above = self.at_least is None or number >= self.at_least
        return above and (self.at_most is None or number <= self.at_most)

    def words(self) -> str:
        """Return what is asked for, in words."""
        limits = []
        if self.at_least is not None:
            limits.append(f"at least {self.at_least:g}")
        if self.at_most is not None:
            limits.append(f"at most {self.at_most:g}")
        return " and ".join(limits)


class NoneOf(Condition):
    """No value of the attribute fits one of the patterns."""

    none_of: Annotated[tuple[str, ...], Field(min_length=1)]

    def fits(self, values: Sequence[str]) -> bool:
        """Say whether no value fits."""
        return not any(matches(value, pattern) for value in values for pattern in self.none_of)

    def words(self) -> str:
        """Return what is asked for, in words."""
        return f"none of {', '.join(self.none_of)}"


class Present(Condition):
    """The attribute has a value, or has none."""

    present: Annotated[bool, Field(strict=True)]

    def fits(self, values: Sequence[str]) -> bool:
        """Say whether there is a value where one is asked for."""
        return bool(values) is self.present

    def words(self) -> str:
        """Return what is asked for, in words."""
        return "any value" if self.present else "no value"


class Patterns(Condition):
    """One of several patterns fits; written as one value or as a list."""

    patterns: Annotated[tuple[str, ...], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _from_plain_value(cls, value: Any) -> Any:
        entries = list(value) if isinstance(value, list | tuple) else [value]
        for entry in entries:
            if isinstance(entry, bool) or not isinstance(entry, str | int | float):
                text = "is not a value that an attribute can have"
                mend = "write text or a number, or a list of them; YES and NO need quotes"
                raise PydanticCustomError("pattern", text, {"mend": mend})
        return {"patterns": tuple(str(entry) for entry in entries)}

    def fits(self, values: Sequence[str]) -> bool:
        """Say whether one of the values fits one of the patterns."""
        return any(matches(value, pattern) for value in values for pattern in self.patterns)

    def words(self) -> str:
        """Return what is asked for, in words."""
        return " or ".join(self.patterns)


def _kind(value: Any) -> str | None:
    """Name the kind of condition that a value is, or None when it is none."""
    if isinstance(value, Condition):
        return type(value).__name__
    if not isinstance(value, dict):
        return Patterns.__name__
    for kind in (Range, NoneOf, Present):
        if value.keys() & kind.model_fields.keys():
            return kind.__name__
    return None


def _keyword(value: str) -> str:
    if value in keyword_dict:
        return value
    exact = {known.casefold(): known for known in keyword_dict}.get(value.casefold())
    text = "'{value}' is not the keyword of a DICOM attribute"
    mend = f"write '{exact}'" if exact else "take the keyword from PS3.6, such as SeriesDescription"
    raise PydanticCustomError("keyword", text, {"value": value, "mend": mend})


Keyword = Annotated[str, AfterValidator(_keyword)]
AnyCondition = Annotated[
    Annotated[Range, Tag(Range.__name__)]
    | Annotated[NoneOf, Tag(NoneOf.__name__)]
    | Annotated[Present, Tag(Present.__name__)]
    | Annotated[Patterns, Tag(Patterns.__name__)],
    Discriminator(
        _kind,
        custom_error_type="condition",
        custom_error_message="is not a condition that exists",
        custom_error_context={"mend": "use at_least, at_most, none_of or present"},
    ),
]


def matches(value: str, pattern: str) -> bool:
    """Say whether a value fits a pattern with ``*`` and ``?``; capitals do not matter.

    Two numbers are equal when their values are: ``1.50`` fits ``1.5``.
    """
    value, pattern = value.strip().casefold(), pattern.strip().casefold()
    # "[" begins a character class in fnmatch, but is plain text in descriptions.
    if fnmatch.fnmatchcase(value, pattern.replace("[", "[[]")):
        return True
    try:
        return float(value) == float(pattern)
    except ValueError:
        return False


def values_of(header: Dataset, keyword: str) -> tuple[str, ...]:
    """Return the values of an attribute as text, without empty ones; none for sequences."""
    value = header.get(keyword)
    if value is None or isinstance(value, bytes):
        return ()
    entries = value if isinstance(value, MultiValue | list | tuple) else [value]
    if any(isinstance(entry, Dataset) for entry in entries):
        return ()
    return tuple(text for entry in entries if (text := str(entry).strip()))


def shown(values: Sequence[str]) -> str:
    """Return values for a sentence, cut where there are many."""
    if not values:
        return "empty"
    more = f" and {len(values) - _SHOWN_VALUES} more" if len(values) > _SHOWN_VALUES else ""
    return "\\".join(values[:_SHOWN_VALUES]) + more
