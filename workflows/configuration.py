"""Read both configuration files of a node, and say what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address

from inference.card import read_card
from inference.errors import CheckpointError
from workflows.home import Home
from workflows.model_card import model_folder
from workflows.rules import Rules, rules_of
from workflows.rules_checks import unheard, unknown_targets
from workflows.settings import NodeSettings, load, settings_of
from workflows.yaml_positions import (
    ConfigurationError,
    ConfigurationProblem,
    MarkedYaml,
    read_marked,
    validate,
)


@dataclass(frozen=True, slots=True)
class Configuration:
    """What the administrator decided: the settings and the rules of the node in `home`."""

    home: Home
    settings: NodeSettings
    rules: Rules

    @property
    def database_url(self) -> str:
        """URL of the database."""
        return self.home.database_url(self.settings)

    @property
    def broker_url(self) -> str:
        """URL of the broker."""
        return self.home.broker_url(self.settings)

    @property
    def destination_names(self) -> tuple[str, ...]:
        """Names that ``destinations: all`` stands for."""
        return tuple(destination.name for destination in self.settings.destinations)


def load_configuration(home: Home) -> Configuration:
    """Read ``node.yaml`` and ``rules.yaml``.

    Raises
    ------
    ConfigurationError
        With file, line and mend of every mistake.
    """
    settings = load(home.node_yaml)
    return Configuration(home, settings, rules_of(read_marked(home.rules_yaml), settings))


def check_configuration(home: Home) -> list[ConfigurationProblem]:
    """Return every mistake in ``node.yaml`` and ``rules.yaml``, and what is worth a look."""
    try:
        node = read_marked(home.node_yaml)
        settings = settings_of(node)
    except ConfigurationError as error:
        # Rules cannot be held against destinations that are not known.
        return [*error.problems, *_rules_alone(home)]
    try:
        marked_rules = read_marked(home.rules_yaml)
        rules = rules_of(marked_rules, settings)
    except ConfigurationError as error:
        return list(error.problems)
    return list(_worth_a_look(settings, rules, node, marked_rules))


def _rules_alone(home: Home) -> tuple[ConfigurationProblem, ...]:
    try:
        validate(Rules, read_marked(home.rules_yaml))
    except ConfigurationError as error:
        return error.problems
    return ()


def _worth_a_look(
    settings: NodeSettings, rules: Rules, node: MarkedYaml, marked_rules: MarkedYaml
) -> Iterable[ConfigurationProblem]:
    """Find what is allowed but seldom meant."""
    if not any("store" in peer.allow for peer in settings.peers):
        text, mend = "nobody may send images to this node", "list the senders under peers"
        yield node.problem(("peers",), text, mend, "warning")
    yield from _readable_on_the_way(settings, node)
    if not settings.destinations:
        text, mend = "results are kept here but sent nowhere", "list the PACS under destinations"
        yield node.problem(("destinations",), text, mend, "warning")
    used: set[str] = set()
    for rule in rules.rules:
        everywhere = [destination.name for destination in settings.destinations]
        used.update(everywhere if rule.destinations == "all" else rule.destinations)
    for index, destination in enumerate(settings.destinations):
        if destination.name not in used:
            text = f"no rule sends anything to {destination.name!r}"
            mend = "name it under destinations of a rule in rules.yaml, or delete it"
            yield node.problem(("destinations", index), text, mend, "warning")
    if not rules.rules:
        text, mend = "without a rule nothing is interpreted", "add a rule"
        yield marked_rules.problem(("rules",), text, mend, "warning")
    if any("critical" in channel.about for channel in settings.notices) and not any(
        rule.critical for rule in rules.rules
    ):
        text = "a notice is to tell of critical findings, but no rule calls any target critical"
        mend = "list targets under critical of a rule in rules.yaml"
        yield node.problem(("notices",), text, mend, "warning")
    yield from unheard(rules, marked_rules, settings)
    with suppress(CheckpointError):  # `doctor`, and the start of the node, tell of a bad model.
        card = read_card(model_folder(settings))
        known = {target.name for target in card.targets}
        yield from unknown_targets(rules, marked_rules, known)


def _readable_on_the_way(
    settings: NodeSettings, node: MarkedYaml
) -> Iterable[ConfigurationProblem]:
    """Find web servers that the network reaches without TLS, the node's own or a proxy's."""
    pages, web = settings.dashboard, settings.dicomweb
    plain = {
        "dashboard": pages.enabled and not pages.certificate,
        "dicomweb": web.enabled and not web.tls,
    }
    for section, one in (("dashboard", pages), ("dicomweb", web)):
        secured = (one.public_url or "").startswith("https:")
        if plain[section] and not secured and not _is_loopback(one.host):
            text = "passwords and patients' data cross the network unencrypted (plain HTTP)"
            own = "certificate and key" if section == "dashboard" else "tls: true"
            mend = f"set {own}, or public_url to the https address of a proxy in front"
            yield node.problem((section, "host"), text, mend, "warning")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
