"""All that the pages do, as JSON: the same roles, the same audit trail, documented by OpenAPI.

Programs send ``Authorization: Bearer ubn_...``. Lists are paged by key: hand ``next_before`` to the
next call as ``before``, until it is null.
"""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

from dashboard.api import description, jobs, node, peers, people, quarantine, rules, studies, trail
from dashboard.api.values import REFUSALS

__all__ = ["REFUSALS", "ROUTERS"]

ROUTERS: Final[tuple[APIRouter, ...]] = (
    jobs.router,
    studies.router,
    node.router,
    quarantine.router,
    rules.router,
    peers.router,
    people.router,
    trail.router,
    description.router,
)
