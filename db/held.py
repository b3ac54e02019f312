"""What the node holds, and so gives out: conditions for statements about instances and results."""

from __future__ import annotations

from typing import Final

from sqlalchemy import and_, exists
from sqlalchemy.orm import aliased

from db.models import Instance, ResultRecord, ResultState

_Came = aliased(Instance)

HELD_SOURCE: Final = and_(Instance.conflict.is_(False), Instance.purged_at.is_(None))
"""A received instance: the first version of its UID, and its file is there."""

HELD_RESULT: Final = and_(
    ResultRecord.state == ResultState.READY,
    ResultRecord.purged_at.is_(None),
    ~exists().where(
        _Came.sop_instance_uid == ResultRecord.sop_instance_uid,
        _Came.conflict.is_(False),
        _Came.purged_at.is_(None),
    ),
)
"""A result that passed its checks, and its file is there; not one that a PACS has sent back, which
counts as received."""
