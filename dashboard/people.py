"""Accounts: other people's for administrators, one's own password and tokens for everybody."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, HTTPException, Path, Request
from starlette.responses import RedirectResponse, Response

from dashboard.access import Admin, NodeOf, Role, Viewer
from dashboard.auditing import note
from dashboard.entry import local_target
from dashboard.rendering import render, say
from db.accounts import (
    Actor,
    change_password,
    change_user,
    invite,
    list_users,
    show_patients,
    unlock,
)
from db.listing import as_text
from db.passwords import AccountError
from db.tokens import USUAL_DAYS, NewToken, add_token, remove_token, tokens_of
from workflows.node import Node

router = APIRouter(include_in_schema=False)
Number = Annotated[int, Path(ge=0, le=2**53)]
Word = Annotated[str, Form(max_length=64)]
Password = Annotated[str, Form(max_length=2048)]


@router.get("/people")
def people_page(request: Request, node: NodeOf, actor: Admin) -> Response:
    """List all accounts."""
    return _people(request, node)


@router.post("/people/invite")
def invite_page(
    request: Request, node: NodeOf, actor: Admin, role: Annotated[Role, Form()], name: Word = ""
) -> Response:
    """Make a link by which somebody chooses a password; it is shown once."""
    with node.database.session() as session:
        secret = invite(session, role, node.now(), created_by=actor.name, name=name.strip())
        note(session, request, "account.invite", target=name, role=str(role))
    base = node.settings.dashboard.public_url or str(request.base_url).rstrip("/")
    return _people(request, node, link=f"{base}/invitation/{secret}", role=str(role))


@router.post("/people/{number}")
def change(
    request: Request,
    node: NodeOf,
    actor: Admin,
    number: Number,
    role: Annotated[Role, Form()],
    enabled: Annotated[bool, Form()] = False,
) -> Response:
    """Change an account's role, or shut it."""
    response = RedirectResponse("/people", 303)
    try:
        with node.database.session() as session:
            user = change_user(session, number, role=role, enabled=enabled)
            note(
                session,
                request,
                "account.change",
                target=user.name,
                role=str(role),
                enabled=enabled,
            )
    except AccountError as error:
        return say(response, str(error), bad=True)
    return say(response, f"{user.name} is {role} now{'' if enabled else ', and shut out'}.")


@router.post("/people/{number}/unlock")
def unlock_one(request: Request, node: NodeOf, actor: Admin, number: Number) -> Response:
    """Let a locked account try again."""
    with node.database.session() as session:
        name = unlock(session, number)
        if name is None:
            raise HTTPException(404)
        note(session, request, "account.unlock", target=name)
    return say(RedirectResponse("/people", 303), f"{name} may try again.")


def _people(request: Request, node: Node, link: str = "", role: str = "") -> Response:
    with node.database.reading() as session:
        users = list_users(session)
    return render(request, "people.html", users=users, link=link, link_role=role)


@router.get("/account")
def account_page(request: Request, node: NodeOf, actor: Viewer) -> Response:
    """Show one's own password form and tokens."""
    return _account(request, node, actor.account_id)


@router.post("/account/password")
def new_password(
    request: Request,
    node: NodeOf,
    actor: Viewer,
    old: Password,
    password: Password,
    again: Password,
) -> Response:
    """Change one's own password; all sessions end."""
    if password != again:
        return _account(request, node, actor.account_id, error="The two new passwords differ.")
    try:
        with node.database.session() as session:
            change_password(session, actor.account_id, old, password)
            note(session, request, "account.password", target=actor.name)
    except AccountError as error:
        return _account(request, node, actor.account_id, error=str(error))
    return say(RedirectResponse("/login", 303), "The password is changed. Log in with the new one.")


@router.post("/account/patients")
def choose_patients(
    request: Request,
    node: NodeOf,
    actor: Viewer,
    shown: Annotated[bool, Form()],
    back: Annotated[str, Form(max_length=2048)] = "/",
) -> Response:
    """Show or hide what names patients, on all pages of this person from now on."""
    with node.database.session() as session:
        show_patients(session, actor.account_id, shown)
        note(session, request, "patients.show" if shown else "patients.hide", target=actor.name)
    return RedirectResponse(local_target(back), 303)


@router.post("/account/tokens")
def new_token(
    request: Request,
    node: NodeOf,
    actor: Viewer,
    label: Word,
    role: Annotated[Role, Form()],
    days: Annotated[int, Form(ge=1, le=3650)] = USUAL_DAYS,
) -> Response:
    """Make a token; it is shown once."""
    try:
        made = make_token(request, node, actor, label, role, days)
    except AccountError as error:
        return _account(request, node, actor.account_id, error=str(error))
    return _account(request, node, actor.account_id, secret=made.secret)


def make_token(
    request: Request, node: Node, actor: Actor, label: str, role: Role, days: int | None
) -> NewToken:
    """Make a token for who asks, and note it; raises as `db.tokens.add_token`."""
    with node.database.session() as session:
        made = add_token(session, actor.account_id, label, role, node.now(), days, maker=actor)
        until = as_text(made.token.expires_at)
        note(session, request, "token.add", target=label, role=str(role), until=until)
    return made


@router.post("/account/tokens/{number}/remove")
def drop_token(request: Request, node: NodeOf, actor: Viewer, number: Number) -> Response:
    """Make a token void."""
    void_token(request, node, actor, number)
    return say(RedirectResponse("/account", 303), "The token is void.")


def void_token(request: Request, node: Node, actor: Actor, number: int) -> None:
    """Make a token of who asks void, and note it; 404 where there is none of this number."""
    with node.database.session() as session:
        if not remove_token(session, actor, number):
            raise HTTPException(404, "There is no such token (any more).")
        note(session, request, "token.remove", target=f"token {number}")


def _account(
    request: Request, node: Node, account_id: int, *, error: str = "", secret: str = ""
) -> Response:
    with node.database.reading() as session:
        tokens = tokens_of(session, account_id)
    return render(
        request, "account.html", status_code=400 if error else 200, tokens=tokens, error=error,
        secret=secret,
    )  # fmt: skip
