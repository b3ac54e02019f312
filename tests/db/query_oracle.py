"""Matching of PS3.4 C.2.2.2 in plain Python: what queries of the database are held against."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache

from db.conditions import Condition, Like, OneOf


def matches(text: str, kind: str, condition: Condition) -> bool:
    """Say whether a text meets a condition."""
    if kind == "name":
        return _name_matches(text, condition)
    if kind == "values":
        return any(_matches(one, condition) for one in text.split("\\"))
    if kind == "time":
        return _time_matches(text, condition)
    return _matches(text, condition)


def like(text: str, pattern: str) -> bool:
    """Match a wildcard pattern, character by character."""

    @cache
    def rest(at: int, of_pattern: int) -> bool:
        if of_pattern == len(pattern):
            return at == len(text)
        if pattern[of_pattern] == "*":
            return rest(at, of_pattern + 1) or (at < len(text) and rest(at + 1, of_pattern))
        if at == len(text):
            return False
        same = pattern[of_pattern] in ("?", text[at])
        return same and rest(at + 1, of_pattern + 1)

    return rest(0, 0)


def _matches(text: str, condition: Condition) -> bool:
    if isinstance(condition, OneOf):
        return text in condition.values
    if isinstance(condition, Like):
        return any(like(text, pattern) for pattern in condition.patterns)
    if text == "":
        return False
    return (not condition.low or text >= condition.low) and (
        not condition.high or text <= condition.high
    )


def _microseconds(time: str, missing: str) -> int:
    bare = time.replace(":", "")
    whole = bare + missing[len(bare) :]
    return int(whole[:2] + whole[2:4] + whole[4:6] + whole[7:])


def _time_matches(text: str, condition: Condition) -> bool:
    if text == "" or isinstance(condition, Like):
        return _matches(text, condition)
    moment = _microseconds(text, "000000.000000")
    if isinstance(condition, OneOf):
        return moment in [_microseconds(one, "000000.000000") for one in condition.values]
    low, high = condition.low, condition.high
    return (not low or moment >= _microseconds(low, "000000.000000")) and (
        not high or moment <= _microseconds(high, "235959.999999")
    )


def _letters(text: str) -> str:
    """Give letters without case and accents."""
    apart = unicodedata.normalize("NFKD", text.casefold())
    return unicodedata.normalize("NFKC", "".join(c for c in apart if not "̀" <= c <= "ͯ"))


def _groups(name: str) -> list[str]:
    groups = []
    for group in name.split("=")[:3]:
        components = [_letters(one.strip()) for one in group.split("^")]
        while components and not components[-1]:
            components.pop()
        groups.append("^".join(components))
    while len(groups) > 1 and not groups[-1]:
        groups.pop()
    return groups


def _name_matches(name: str, condition: Condition) -> bool:
    groups = _groups(name)
    asked: Sequence[str] = (
        condition.values if isinstance(condition, OneOf) else condition.patterns  # type: ignore[union-attr]
    )
    for one in asked:
        wanted = "=".join(_groups(one))
        candidates = ["=".join(groups)]
        if "=" not in wanted:
            candidates += groups[:1] if wanted.isascii() else groups
        for candidate in candidates:
            if candidate == wanted if isinstance(condition, OneOf) else like(candidate, wanted):
                return True
    return False
