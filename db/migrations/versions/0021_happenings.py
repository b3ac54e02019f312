"""What happened to jobs, until it is told; a job may fail more than once.

Revision ID: 0021_happenings
Revises: 0020_login_hosts
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from db.columns import BigId, UtcDateTime

revision = "0021_happenings"
down_revision = "0020_login_hosts"
branch_labels = None
depends_on = None
_ONCE = "uq_notice_job_id_kind_channel"


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "happening",
        sa.Column("id", BigId, nullable=False),
        sa.Column("job_id", BigId, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_happening")),
        sa.ForeignKeyConstraint(
            ["job_id"], ["job.id"], name=op.f("fk_happening_job_id_job"), ondelete="CASCADE"
        ),
    )
    op.create_index("ix_happening_job_id", "happening", ["job_id"])
    with op.batch_alter_table("notice") as notice:
        notice.drop_constraint(_ONCE, type_="unique")
        notice.create_index("ix_notice_job_id", ["job_id"])


def downgrade() -> None:
    """Tell each kind of thing of a job once."""
    op.execute(
        "DELETE FROM notice WHERE id NOT IN "
        "(SELECT min(id) FROM notice GROUP BY job_id, kind, channel)"
    )
    with op.batch_alter_table("notice") as notice:
        notice.drop_index("ix_notice_job_id")
        notice.create_unique_constraint(_ONCE, ["job_id", "kind", "channel"])
    op.drop_table("happening")
