"""The table of peers: deny by default, and say how to allow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.peers import Peer, Peers, printable_ae_title


def test_who_is_not_listed_is_refused_with_the_line_that_allows_it() -> None:
    refusal = Peers().refusal("CT9", "UNIBIOMED", "10.0.0.9")
    assert refusal is not None
    assert (refusal.result, refusal.source, refusal.reason) == (1, 1, 3)
    assert "not listed" in refusal.sentence
    assert 'ae_title: "CT9", host: "10.0.0.9"' in refusal.sentence


@pytest.mark.parametrize(
    ("host", "address", "allowed"),
    [
        (None, "10.0.0.9", True),
        ("10.0.0.9", "10.0.0.9", True),
        ("10.0.0.8", "10.0.0.9", False),
        ("10.0.0.0/24", "10.0.0.9", True),
        ("10.0.1.0/24", "10.0.0.9", False),
        ("10.0.0.9", "::ffff:10.0.0.9", True),
        ("localhost", "127.0.0.1", True),
        ("no-such-host.invalid", "127.0.0.1", False),
        ("10.0.0.0/24", "not an address", False),
    ],
)
def test_a_listed_title_must_call_from_its_host(
    host: str | None, address: str, allowed: bool
) -> None:
    refusal = Peers([Peer("ct", "CT1", host)]).refusal("CT1", "X", address)
    assert (refusal is None) == allowed
    if refusal is not None:
        assert "listed, but not for" in refusal.sentence


def test_titles_are_case_sensitive_and_the_own_entry_goes_before_any() -> None:
    peers = Peers([Peer("any", "*"), Peer("ct", "CT1", quiet_seconds=5)])
    assert peers.refusal("ct1", "X", "10.0.0.1") is None
    found = peers.find("CT1", "10.0.0.1")
    assert found is not None and found.name == "ct"
    assert Peers([Peer("ct", "CT1")]).refusal("ct1", "X", "10.0.0.1") is not None


@given(st.text(max_size=40))
def test_hostile_titles_do_not_reach_the_log(title: str) -> None:
    shown = printable_ae_title(title)
    assert len(shown) <= 16
    assert shown.isascii() and shown.isprintable()
    assert not set(shown) & set("\"'\\")
