"""What no single entry of ``rules.yaml`` shows: names there twice, or that nothing else knows."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from workflows.yaml_positions import ConfigurationProblem, MarkedYaml

if TYPE_CHECKING:
    from workflows.rules import Rules
    from workflows.settings import NodeSettings


def problems_of(
    rules: Rules, marked: MarkedYaml, settings: NodeSettings
) -> Iterator[ConfigurationProblem]:
    """Yield every mistake that takes more than one entry to see."""
    yield from _duplicates(rules, marked)
    yield from _unknown_destinations(rules, marked, settings)
    yield from _critical_but_not_asked(rules, marked)


def _duplicates(rules: Rules, marked: MarkedYaml) -> Iterator[ConfigurationProblem]:
    seen: dict[str, int] = {}
    for index, rule in enumerate(rules.rules):
        first = seen.setdefault(rule.name.casefold(), index)
        if first != index:
            text = f"the name {rule.name!r} is already used by rules[{first}]"
            yield marked.problem(("rules", index, "name"), text, "give each rule its own name")


def _unknown_destinations(
    rules: Rules, marked: MarkedYaml, settings: NodeSettings
) -> Iterator[ConfigurationProblem]:
    names = [destination.name for destination in settings.destinations]
    for index, rule in enumerate(rules.rules):
        for position, wanted in enumerate(() if rule.destinations == "all" else rule.destinations):
            if wanted not in names:
                text = f"there is no destination {wanted!r}"
                mend = "add it to destinations in node.yaml"
                mend += f", or use one of {', '.join(names)}" if names else ", which has none yet"
                yield marked.problem(("rules", index, "destinations", position), text, mend)


def _critical_but_not_asked(rules: Rules, marked: MarkedYaml) -> Iterator[ConfigurationProblem]:
    for index, rule in enumerate(rules.rules):
        if rule.targets == "all" or rule.critical == "all":
            continue
        asked = {name.casefold() for name in rule.targets}
        for position, name in enumerate(rule.critical):
            if name.casefold() not in asked:
                text = f"{name!r} is called critical, but this rule does not look for it"
                mend = "add it to targets of the rule, or take it out of critical"
                yield marked.problem(("rules", index, "critical", position), text, mend)


def unknown_targets(
    rules: Rules, marked: MarkedYaml, known: Collection[str]
) -> Iterator[ConfigurationProblem]:
    """Warn of targets that the model's card does not list: nothing would ever be found of them."""
    names = {name.casefold() for name in known}
    for index, rule in enumerate(rules.rules):
        for key, wanted in (("targets", rule.targets), ("critical", rule.critical)):
            for position, name in enumerate(() if wanted == "all" else wanted):
                if name.casefold() not in names:
                    text = f"the card of the model lists no target {name!r}"
                    mend = f"use one of {', '.join(sorted(known))}"
                    where = ("rules", index, key, position)
                    yield marked.problem(where, text, mend, "warning")


def unheard(
    rules: Rules, marked: MarkedYaml, settings: NodeSettings
) -> Iterator[ConfigurationProblem]:
    """Warn of rules that call something critical where nobody is told of it."""
    if any("critical" in channel.about for channel in settings.notices):
        return
    for index, rule in enumerate(rules.rules):
        if rule.critical:
            text = "this rule calls findings critical, but nobody is told"
            mend = "add an entry to notices in node.yaml, with critical under about"
            yield marked.problem(("rules", index, "critical"), text, mend, "warning")
