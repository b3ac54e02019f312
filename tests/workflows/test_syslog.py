"""Syslog to a real collector: framing, proof that all was read, refusals in words."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.demo_pacs import free_port
from dicom_node.errors import RetriableError
from dicom_node.services.tls import Tls, client_context, server_context
from tests.factories.certificates import make_certificate
from tests.factories.syslog_collector import Collector, Message
from workflows.syslog import deliver, syslog_message

AT = datetime(2026, 3, 1, 9, 0, 0, 123000, timezone(timedelta(hours=1)))


def message(text: str, **changes: str) -> bytes:
    names = {"host": "node", "application": "UNIBIOMED", "process": "7", "kind": "DICOM+RFC3881"}
    return syslog_message(text, at=AT, **{**names, **changes})  # type: ignore[arg-type]


def test_a_message_has_the_form_of_rfc_5424() -> None:
    assert message("<a/>") == (
        b"<85>1 2026-03-01T08:00:00.123Z node UNIBIOMED 7 DICOM+RFC3881 - \xef\xbb\xbf<a/>"
    )


@given(st.text(max_size=300), st.text(max_size=80), st.datetimes(timezones=st.just(UTC)))
def test_whatever_stands_in_it_comes_out_again(text: str, title: str, at: datetime) -> None:
    made = syslog_message(
        text, at=at, host="node", application=title, process="7", kind="k", severity=4
    )
    told = Message.of(made)
    assert (told.priority, told.host, told.process, told.kind) == (84, "node", "7", "k")
    assert told.text == text.encode("utf-8", "replace").decode()
    assert 0 < len(told.application) <= 48


@pytest.mark.parametrize("transport", ["tls", "tcp", "udp"])
def test_messages_come_in_order(transport: str, tmp_path: Path) -> None:
    node, server = make_certificate(tmp_path, "node"), make_certificate(tmp_path, "collector")
    theirs = ours = None
    if transport == "tls":
        theirs = server_context(Tls(server.path, server.key_path, pinned=(node.path,)))
        ours = client_context(Tls(node.path, node.key_path, pinned=(server.path,)))
    with Collector(transport, theirs) as collector:
        sent = [message(f"{number}\n" * 300) for number in range(30)]
        deliver(sent, "127.0.0.1", collector.port, transport=transport, context=ours)  # type: ignore[arg-type]
        assert [one.text for one in collector.got(30)] == [f"{n}\n" * 300 for n in range(30)]
        assert collector.connections == (transport != "udp")
        assert not collector.problems


@pytest.fixture
def silent() -> Iterator[int]:
    """Give a port that takes connections and never reads."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.listen()
        yield listener.getsockname()[1]


def test_a_collector_that_never_reads_proves_nothing(silent: int) -> None:
    with pytest.raises(RetriableError, match=r"did not take them within 0\.2 s"):
        deliver([message("x")], "127.0.0.1", silent, transport="tcp", seconds=0.2)


def test_one_that_stops_in_the_middle_proves_nothing() -> None:
    with Collector(rude_after=100) as collector, pytest.raises(RetriableError, match="reached"):
        deliver([message("x" * 5000)] * 100, "127.0.0.1", collector.port, transport="tcp")


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_nobody_there(transport: str) -> None:
    with pytest.raises(RetriableError, match="cannot be reached"):
        deliver([message("x")], "127.0.0.1", free_port(), transport=transport)  # type: ignore[arg-type]


def test_a_foreign_collector_gets_nothing(tmp_path: Path) -> None:
    server, other = make_certificate(tmp_path, "collector"), make_certificate(tmp_path, "other")
    theirs = server_context(Tls(server.path, server.key_path), mutual=False)
    ours = client_context(Tls(pinned=(other.path,)))
    with Collector("tls", theirs) as collector:
        with pytest.raises(RetriableError, match=r"certificate of .* is not accepted"):
            deliver([message("x")], "127.0.0.1", collector.port, transport="tls", context=ours)
        assert collector.messages.empty()


def test_one_that_wants_a_certificate_says_so(tmp_path: Path) -> None:
    node, server = make_certificate(tmp_path, "node"), make_certificate(tmp_path, "collector")
    theirs = server_context(Tls(server.path, server.key_path, pinned=(node.path,)))
    ours = client_context(Tls(pinned=(server.path,)))
    with Collector("tls", theirs) as collector:
        # Under TLS 1.3 the refusal comes after our handshake, by an alert or by a reset, before or
        # after our messages and our "close notify": often enough to meet each.
        for _ in range(60):
            with pytest.raises(RetriableError, match=r"want a certificate|cannot be reached"):
                deliver([message("x")], "127.0.0.1", collector.port, transport="tls", context=ours)
        assert collector.messages.empty()


def test_a_port_without_tls_gets_nothing() -> None:
    with Collector() as collector, pytest.raises(RetriableError):
        ours = client_context(Tls())
        deliver(
            [message("x")], "127.0.0.1", collector.port, transport="tls", context=ours, seconds=0.5
        )
