"""What no single setting shows: names that are there twice, settings that contradict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from workflows.destination_settings import AeDestinationSettings
from workflows.yaml_positions import ConfigurationProblem, MarkedYaml

if TYPE_CHECKING:
    from workflows.settings import NodeSettings

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0"})  # noqa: S104


def problems_of(settings: NodeSettings, marked: MarkedYaml) -> Iterator[ConfigurationProblem]:
    """Yield every mistake in ``node.yaml`` that takes more than one setting to see."""
    yield from _duplicates(settings, marked)
    yield from _clashes_of_tls(settings, marked)
    yield from _clashes(settings, marked)
    yield from _dangling(settings, marked)
    yield from _unprovable(settings, marked)


def _duplicates(settings: NodeSettings, marked: MarkedYaml) -> Iterable[ConfigurationProblem]:
    """Find names, senders and receivers that are there twice."""
    names = {
        "peers": [peer.name for peer in settings.peers],
        "destinations": [destination.name for destination in settings.destinations],
        "worklists": [worklist.name for worklist in settings.worklists],
        "notices": [channel.name for channel in settings.notices],
        "audit": [collector.name for collector in settings.audit],
    }
    for section, section_names in names.items():
        seen: dict[str, int] = {}
        for index, name in enumerate(section_names):
            first = seen.setdefault(name.casefold(), index)
            if first != index:
                text = f"the name {name!r} is already used by {section}[{first}]"
                yield marked.problem((section, index, "name"), text, "give each its own name")
    senders: dict[tuple[str, str | None], int] = {}
    for index, peer in enumerate(settings.peers):
        first = senders.setdefault((peer.ae_title, peer.host), index)
        if first != index:
            text = f"the AE title {peer.ae_title!r} at this address is already peers[{first}]"
            mend = "delete one of the two, or give them different hosts"
            yield marked.problem(("peers", index, "ae_title"), text, mend)
    receivers: dict[tuple[str, str, str], int] = {}
    for index, destination in enumerate(settings.destinations):
        if isinstance(destination, AeDestinationSettings):
            place = (destination.ae_title, destination.host, str(destination.port))
        else:
            place = (destination.url.rstrip("/"), "", "")
        first = receivers.setdefault(place, index)
        if first != index:
            what = "AE" if place[1] else "server"
            text = f"is the same {what} as destinations[{first}]: it would get everything twice"
            yield marked.problem(("destinations", index), text, "delete one of the two")


def _clashes_of_tls(settings: NodeSettings, marked: MarkedYaml) -> Iterable[ConfigurationProblem]:
    """Find TLS that is asked for and cannot be."""
    node, tls = settings.node, settings.tls
    if tls.port is not None and (tls.certificate is None or tls.key is None):
        text, mend = "TLS needs a certificate and its key", "set tls.certificate and tls.key"
        yield marked.problem(("tls", "port"), text, mend)
    if settings.dicomweb.tls and (tls.certificate is None or tls.key is None):
        text, mend = "TLS needs a certificate and its key", "set tls.certificate and tls.key"
        yield marked.problem(("dicomweb", "tls"), text, mend)
    if tls.port is None and not tls.plain:
        text = "the node would listen nowhere"
        yield marked.problem(("tls", "plain"), text, "set tls.port, or plain to true")
    if tls.port and tls.port == node.port and tls.plain:
        text = "is the port without TLS, too (node.port)"
        yield marked.problem(("tls", "port"), text, "choose another, 2762 by custom")
    for index, peer in enumerate(settings.peers):
        if tls.port is None and (peer.requires_tls or peer.certificate):
            text = "must call by TLS, but this node has no port for TLS"
            yield marked.problem(("peers", index), text, "set tls.port, or leave TLS out here")


def _clashes(settings: NodeSettings, marked: MarkedYaml) -> Iterable[ConfigurationProblem]:
    """Find destinations that are the node itself, and results that go before their images."""
    kept = settings.retention
    if (kept.studies_days or 0) > (kept.results_days or 1 << 30):
        text = "results would go before the images that they were made from"
        mend = "keep results at least as long as studies (retention.studies_days)"
        yield marked.problem(("retention", "results_days"), text, mend)
    node = settings.node
    own_hosts = _LOOPBACK | {node.host}
    for index, destination in enumerate(settings.destinations):
        if not isinstance(destination, AeDestinationSettings):
            continue
        if destination.port == node.port and destination.host in own_hosts:
            text = f"port {destination.port} of {destination.host} is this node's own listener"
            mend = "name the port of the PACS, or give the node another one (node.port)"
            yield marked.problem(("destinations", index, "port"), text, mend)


def _dangling(settings: NodeSettings, marked: MarkedYaml) -> Iterable[ConfigurationProblem]:
    """Find destinations whose reports would refer to a segmentation that they are not sent."""
    for index, destination in enumerate(settings.destinations):
        reports = {"measurement_report", "grounded_report"} & set(destination.objects)
        if reports and "segmentation" not in destination.objects:
            text = (
                f"the {' and '.join(sorted(reports))} refers to the segmentation, not listed here"
            )
            mend = "list segmentation too, or leave the reports out"
            yield marked.problem(("destinations", index, "objects"), text, mend)


def _unmovable(settings: NodeSettings, marked: MarkedYaml) -> Iterable[ConfigurationProblem]:
    """Find priors that are to come by C-MOVE, and nobody may bring them."""
    priors = settings.priors
    source = settings.destination(priors.destination) if priors.destination else None
    if not isinstance(source, AeDestinationSettings):
        return
    may_store = {peer.ae_title for peer in settings.peers if "store" in peer.allow}
    senders = priors.sent_by or (source.ae_title,)
    silent = [title for title in senders if title not in may_store]
    if silent and (priors.by == "move" or priors.sent_by):
        text = f"{silent[0]!r} may not store here what it is asked to move"
        mend = "list it under peers, with allow: [echo, store]"
        yield marked.problem(("priors", "sent_by" if priors.sent_by else "by"), text, mend)


def _unprovable(settings: NodeSettings, marked: MarkedYaml) -> Iterable[ConfigurationProblem]:
    """Find what asks a destination for something that cannot come."""
    ask = settings.completion.ask
    if ask is not None and not isinstance(settings.destination(ask), AeDestinationSettings):
        text = f"{ask!r} is no destination with an AE title"
        yield marked.problem(("completion", "ask"), text, "use the name of one under destinations")
    prior = settings.priors.destination
    if prior is not None and not isinstance(settings.destination(prior), AeDestinationSettings):
        text = f"{prior!r} is no destination with an AE title"
        mend = "use the name of one under destinations"
        yield marked.problem(("priors", "destination"), text, mend)
    yield from _unmovable(settings, marked)
    archive = settings.retention.archive
    if archive is not None and settings.destination(archive) is None:
        text = f"{archive!r} is no destination"
        yield marked.problem(
            ("retention", "archive"), text, "use the name of one under destinations"
        )
    for index, destination in enumerate(settings.destinations):
        if not isinstance(destination, AeDestinationSettings):
            continue
        may_report = {peer.ae_title for peer in settings.peers if "commit" in peer.allow}
        silent = [title for title in destination.reporters if title not in may_report]
        if destination.confirm == "commitment" and silent:
            text = f"{silent[0]!r} may not call this node to report what it commits to"
            mend = "list it under peers, with allow: [echo, commit]"
            yield marked.problem(("destinations", index, "confirm"), text, mend)
