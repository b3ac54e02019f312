"""Passwords, and that checking one holds up nobody."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from db.passwords import NOBODY, AccountError, fits, hashed, prove


@given(st.text(min_size=10, max_size=60).filter(lambda text: len(set(text)) > 3))
@settings(max_examples=2, deadline=None)
def test_a_hash_is_of_its_password_alone(password: str) -> None:
    made = hashed(password, "Ada")
    assert fits(made, password)
    assert not fits(made, f"{password}x")
    proof = prove(made, password)
    assert (proof.right, proof.renewed) == (True, "")


def test_a_hash_by_older_parameters_is_renewed() -> None:
    from argon2 import PasswordHasher

    older = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash("correct horse")
    proof = prove(older, "correct horse")
    assert proof.right
    assert fits(proof.renewed, "correct horse")


@pytest.mark.parametrize("password", ["short", "aaaaaaaaaaaa", "adalovelace", "x" * 1025])
def test_what_is_no_password(password: str) -> None:
    with pytest.raises(AccountError):
        hashed(password, "AdaLovelace")


def test_nobody_has_a_password() -> None:
    assert not prove(NOBODY, "").right
