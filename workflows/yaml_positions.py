"""Read a YAML file so that every value remembers its line, and word pydantic's complaints.

An administrator edits ``node.yaml`` and ``rules.yaml`` by hand. A mistake is therefore never
answered with a traceback but with file, line and the mend.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

Location = tuple[str | int, ...]
ModelT = TypeVar("ModelT", bound=BaseModel)

_MENDS: Final[Mapping[str, str]] = {
    "missing": "add it",
    "string_type": "write text; put it in quotes if it looks like a number",
    "int_type": "write a whole number without quotes",
    "int_from_float": "write a whole number without quotes",
    "float_type": "write a number without quotes",
    "bool_type": "write true or false",
    "tuple_type": "write a list: one entry per line, each begun with '- '",
    "frozen_set_type": "write a list: one entry per line, each begun with '- '",
    "list_type": "write a list: one entry per line, each begun with '- '",
    "model_type": "write 'key: value' lines, indented below this key",
    "model_attributes_type": "write 'key: value' lines, indented below this key",
    "dict_type": "write 'key: value' lines, indented below this key",
}


@dataclass(frozen=True, slots=True)
class ConfigurationProblem:
    """One mistake in a configuration file.

    Attributes
    ----------
    file, line
        Where; the line counts from 1.
    key
        The setting, e.g. ``destinations[0].port``; empty for the file as a whole.
    text, mend
        What is wrong, and what to do about it.
    severity
        ``"error"``: the node does not start. ``"warning"``: it does, but look.
    """

    file: str
    line: int
    key: str
    text: str
    mend: str
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: {self.severity}: "
        subject = f"{self.key}: " if self.key else ""
        return f"{where}{subject}{self.text}. Mend: {self.mend.removesuffix('.')}."


class ConfigurationError(Exception):
    """A configuration file cannot be used.

    Attributes
    ----------
    problems
        All mistakes that were found, in the order of their lines.
    """

    def __init__(self, problems: Iterable[ConfigurationProblem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.file, problem.line)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


@dataclass(frozen=True, slots=True)
class MarkedYaml:
    """A YAML document with the line of every key and list entry.

    Attributes
    ----------
    file
        The name used in messages.
    data
        The plain values.
    lines
        Line of each location, counted from 1; ``()`` is the document itself.
    """

    file: str
    data: Any
    lines: Mapping[Location, int] = field(repr=False)

    def line(self, location: Sequence[str | int]) -> int:
        """Return the line of a location, or of the nearest thing above it that was written."""
        written = tuple(location)
        while written and written not in self.lines:
            written = written[:-1]
        return self.lines.get(written, 1)

    def problem(
        self,
        location: Sequence[str | int],
        text: str,
        mend: str,
        severity: Literal["error", "warning"] = "error",
    ) -> ConfigurationProblem:
        """Return a problem that points at this location."""
        line, key = self.line(location), key_text(location)
        return ConfigurationProblem(self.file, line, key, text, mend, severity)


def key_text(location: Sequence[str | int]) -> str:
    """Return ``("peers", 0, "port")`` as ``peers[0].port``."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).removeprefix(".")


def read_marked(path: Path) -> MarkedYaml:
    """Read a YAML file and keep its line numbers.

    Raises
    ------
    ConfigurationError
        The file cannot be read, is not YAML, or repeats a key (YAML parsers silently keep the
        last one, which hides a mistake).
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        problem = ConfigurationProblem(
            str(path), 1, "", f"cannot be read ({error.strerror})", "check its path and its rights"
        )
        raise ConfigurationError([problem]) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        problem = ConfigurationProblem(str(path), line, "", "is not UTF-8 text", "save it as UTF-8")
        raise ConfigurationError([problem]) from error
    return parse_marked(text, str(path))


def parse_marked(text: str, file: str) -> MarkedYaml:
    """Parse YAML text; ``file`` is the name for messages. Raises as `read_marked`."""
    lines: dict[Location, int] = {(): 1}
    problems: list[ConfigurationProblem] = []
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None:
            return MarkedYaml(file, None, lines)
        _mark(root, (), lines, problems, file)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = error.problem or "cannot be understood"
        mend = "check the indentation (spaces, never tabs), the colons and the quotes"
        problem = ConfigurationProblem(file, mark.line + 1 if mark else 1, "", what, mend)
        raise ConfigurationError([problem]) from error
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        problem = ConfigurationProblem(
            file, line, "", "contains a control character", "delete the character"
        )
        raise ConfigurationError([problem]) from error
    except RecursionError as error:
        text = "refers to itself without end"
        problem = ConfigurationProblem(file, 1, "", text, "write values out instead of '*name'")
        raise ConfigurationError([problem]) from error
    if problems:
        raise ConfigurationError(problems)
    return MarkedYaml(file, data, lines)


def _mark(
    node: yaml.Node,
    location: Location,
    lines: dict[Location, int],
    problems: list[ConfigurationProblem],
    file: str,
) -> None:
    """Note the line of everything below a node, and keys that are there twice."""
    if isinstance(node, yaml.SequenceNode):
        for index, entry in enumerate(node.value):
            lines[(*location, index)] = entry.start_mark.line + 1
            _mark(entry, (*location, index), lines, problems, file)
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        place = (*location, str(key.value))
        line = key.start_mark.line + 1
        if place in lines:
            text = f"is written twice (first in line {lines[place]})"
            mend = "keep one of the two"
            problems.append(ConfigurationProblem(file, line, key_text(place), text, mend))
        lines[place] = line
        _mark(value, place, lines, problems, file)


def validate(model: type[ModelT], marked: MarkedYaml) -> ModelT:
    """Build a pydantic model from a marked document.

    Raises
    ------
    ConfigurationError
        With every mistake, each with its line and its mend.
    """
    try:
        return model.model_validate({} if marked.data is None else marked.data)
    except ValidationError as error:
        raise ConfigurationError(_worded(model, marked, error.errors(include_url=False))) from error


def _worded(
    model: type[BaseModel], marked: MarkedYaml, errors: Iterable[ErrorDetails]
) -> list[ConfigurationProblem]:
    """Turn pydantic's errors into problems, one for each place."""
    problems: dict[Location, ConfigurationProblem] = {}
    for error in errors:
        location = _written_location(error, marked)
        problem = marked.problem(location, _text(error), _mend(model, error))
        # Alternatives of a union complain one by one about the same place: the first will do.
        problems.setdefault(location, problem)
    return list(problems.values())


def _written_location(error: ErrorDetails, marked: MarkedYaml) -> Location:
    """Drop the parts that pydantic adds for the alternatives of a union."""
    kept: Location = ()
    for part in error["loc"]:
        if (*kept, part) in marked.lines:
            kept = (*kept, part)
    return (*kept, error["loc"][-1]) if error["type"] == "missing" else kept


def _text(error: ErrorDetails) -> str:
    if error["type"] == "extra_forbidden":
        return "is not a setting that exists"
    if error["type"] == "missing":
        return "is missing"
    if error["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return "should hold settings of its own"
    text = error["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
    shown = error["input"]
    # URLs may hold passwords, and this text goes to logs and screens.
    secret = isinstance(shown, str) and "://" in shown
    if isinstance(shown, str | int | float) and not secret and repr(shown) not in text:
        return f"{text} (it says {shown!r})"
    return text


def _mend(model: type[BaseModel], error: ErrorDetails) -> str:
    context = error.get("ctx") or {}
    if "mend" in context:
        return str(context["mend"])
    if error["type"] == "extra_forbidden":
        return _suggestion(str(error["loc"][-1]), _fields_at(model, error["loc"][:-1]))
    if error["type"] == "literal_error":
        return f"write one of {context.get('expected', 'the allowed words')}"
    return _MENDS.get(error["type"], "write a value as the comments of the default file show")


def _suggestion(key: str, fields: Sequence[str]) -> str:
    close = difflib.get_close_matches(key, fields, n=1)
    if close:
        return f"it is probably meant to be '{close[0]}'"
    return f"delete it, or use one of: {', '.join(sorted(fields))}" if fields else "delete it"


def _fields_at(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """Return the names of the settings that may stand at a place."""
    current: type[BaseModel] = model
    for part in location:
        known = current.model_fields.get(part) if isinstance(part, str) else None
        if known is not None:
            inner = _inner_model(known.annotation)
            if inner is None:
                return []
            current = inner
    return list(current.model_fields)


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    """Return the pydantic model inside ``Model``, ``tuple[Model, ...]`` or ``Model | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, (_inner_model(part) for part in get_args(annotation))), None)
