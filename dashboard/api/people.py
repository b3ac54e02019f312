"""Accounts, and who asks."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel, Field

from dashboard.access import Admin, NodeOf, Viewer
from dashboard.api.values import Number
from dashboard.auditing import note
from dashboard.people import make_token, void_token
from db.accounts import change_user, invite, list_users, unlock
from db.listing import as_text
from db.models_access import ApiToken, Role
from db.tokens import tokens_of

router = APIRouter(prefix="/api")


class NewPerson(BaseModel):
    """Somebody to invite."""

    role: Role
    name: str = Field(default="", max_length=64)


class PersonChange(BaseModel):
    """What an account may do from now on."""

    role: Role
    enabled: bool


class TokenWish(BaseModel):
    """A token to make; without `days` it is good for a year, or as long as the one that asks."""

    label: str = Field(min_length=1, max_length=64, pattern=r"\S")
    role: Role
    days: int | None = Field(default=None, ge=1, le=3650)


@router.get("/me", tags=["people"])
def me(actor: Viewer) -> dict[str, Any]:
    """Tell who asks."""
    return {"name": actor.name, "role": str(actor.role), "by_token": actor.by_token}


@router.get("/people", tags=["people"])
def people(node: NodeOf, actor: Admin) -> list[dict[str, Any]]:
    """List all accounts."""
    with node.database.reading() as session:
        users = list_users(session)
    return [
        {"id": one.id, "name": one.name, "role": str(one.role), "enabled": one.enabled,
         "last_login_at": as_text(one.last_login_at), "locked_until": as_text(one.locked_until)}
        for one in users
    ]  # fmt: skip


@router.post("/people/invitations", tags=["people"], status_code=201)
def invite_one(request: Request, node: NodeOf, actor: Admin, wanted: NewPerson) -> dict[str, str]:
    """Make a one-time link by which somebody chooses a password."""
    with node.database.session() as session:
        secret = invite(
            session, wanted.role, node.now(), created_by=actor.name, name=wanted.name.strip()
        )
        note(session, request, "account.invite", target=wanted.name, role=str(wanted.role))
    return {"path": f"/invitation/{secret}"}


@router.put("/people/{number}", tags=["people"])
def change_person(
    request: Request, node: NodeOf, actor: Admin, number: Number, wanted: PersonChange
) -> dict[str, Any]:
    """Change an account's role, or shut it."""
    with node.database.session() as session:
        user = change_user(session, number, role=wanted.role, enabled=wanted.enabled)
        note(
            session, request, "account.change", target=user.name,
            role=str(wanted.role), enabled=wanted.enabled,
        )  # fmt: skip
    return {
        "id": number, "name": user.name, "role": str(wanted.role), "enabled": wanted.enabled,
    }  # fmt: skip


@router.post("/people/{number}/unlock", tags=["people"], status_code=204)
def unlock_one(request: Request, node: NodeOf, actor: Admin, number: Number) -> None:
    """Let a locked account try again."""
    with node.database.session() as session:
        name = unlock(session, number)
        if name is None:
            raise HTTPException(404, "There is no such account.")
        note(session, request, "account.unlock", target=name)


@router.get("/tokens", tags=["people"])
def tokens(node: NodeOf, actor: Viewer) -> list[dict[str, Any]]:
    """List the tokens of who asks, without their secrets."""
    with node.database.reading() as session:
        return [_line(one) for one in tokens_of(session, actor.account_id)]


@router.post("/tokens", tags=["people"], status_code=201)
def add_one_token(
    request: Request, node: NodeOf, actor: Viewer, wanted: TokenWish
) -> dict[str, Any]:
    """Make a token for who asks; `token` is told this once. A token makes no better one."""
    made = make_token(request, node, actor, wanted.label, wanted.role, wanted.days)
    return {**_line(made.token), "token": made.secret}


@router.delete("/tokens/{number}", tags=["people"], status_code=204)
def remove_one_token(request: Request, node: NodeOf, actor: Viewer, number: Number) -> None:
    """Make a token void, at once."""
    void_token(request, node, actor, number)


def _line(token: ApiToken) -> dict[str, Any]:
    return {
        "id": token.id, "label": token.label, "role": str(token.role),
        "created_at": as_text(token.created_at), "expires_at": as_text(token.expires_at),
        "used_at": as_text(token.used_at),
    }  # fmt: skip
