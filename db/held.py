"""What the node holds, and so gives out: conditions for statements about instances and results."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, and_, exists
from sqlalchemy.orm import aliased

from db.models import Instance, ResultRecord, ResultState, Withdrawal

_Came = aliased(Instance)


def _not_withdrawn(sop_instance_uid: Any) -> ColumnElement[bool]:
    return ~exists().where(Withdrawal.sop_instance_uid == sop_instance_uid)


STORED_SOURCE: Final = and_(Instance.conflict.is_(False), Instance.purged_at.is_(None))
"""A received instance: the first version of its UID, and its file is there."""

HELD_SOURCE: Final = and_(
    STORED_SOURCE,
    _not_withdrawn(Instance.sop_instance_uid),
)
"""A stored one that is no withdrawn result, which a PACS has sent back."""

HELD_RESULT: Final = and_(
    ResultRecord.state == ResultState.READY,
    ResultRecord.purged_at.is_(None),
    ~exists().where(
        _Came.sop_instance_uid == ResultRecord.sop_instance_uid,
        _Came.conflict.is_(False),
        _Came.purged_at.is_(None),
    ),
    _not_withdrawn(ResultRecord.sop_instance_uid),
)
"""A result that passed its checks and was not withdrawn, and its file is there; not one that a
PACS has sent back, which counts as received."""
