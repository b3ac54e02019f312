"""Wrong passwords by the address that they came from, for all processes of the dashboard together.

An account is locked by itself (`db.accounts`). Who tries one password on many names meets this.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address
from typing import Final

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from db.inserting import insert_by
from db.models_access import LoginHost

WINDOW: Final = timedelta(minutes=15)
"""Failures are counted for so long, and a host that had too many rests for so long."""
_SITE_BITS: Final = 64


def counted_host(address: str) -> str:
    """Return under what an address is counted: of IPv6 its /64, all of which one host may have."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if not isinstance(found, IPv6Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    network = int(found) >> (128 - _SITE_BITS) << (128 - _SITE_BITS)
    return f"{IPv6Address(network)}/{_SITE_BITS}"


def blocked_until(session: Session, host: str, now: datetime) -> datetime | None:
    """Return until when a host may not try; None when it may."""
    found = session.get(LoginHost, host)
    until = None if found is None else found.blocked_until
    return until if until is not None and now < until else None


def count_failure(session: Session, host: str, now: datetime, most: int) -> datetime | None:
    """Count a wrong password; until when the host rests, where this was the one too many.

    Parameters
    ----------
    session
        An open transaction.
    host
        As `counted_host` writes it.
    now
        Aware time.
    most
        So many within `WINDOW` are one too many.
    """
    past = or_(LoginHost.blocked_until.is_(None), LoginHost.blocked_until <= now)
    session.execute(delete(LoginHost).where(LoginHost.since <= now - WINDOW, past))
    first = insert_by(session, LoginHost).values(host=host, failures=0, since=now)
    session.execute(first.on_conflict_do_nothing())
    record = session.scalars(
        select(LoginHost).where(LoginHost.host == host).with_for_update()
    ).one()
    record.failures += 1
    if record.failures < most or record.blocked_until is not None:
        return None
    record.blocked_until = now + WINDOW
    return record.blocked_until
