"""From which addresses wrong passwords came.

Revision ID: 0020_login_hosts
Revises: 0019_choices
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from db.columns import UtcDateTime

revision = "0020_login_hosts"
down_revision = "0019_choices"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "login_host",
        sa.Column("host", sa.String(length=64), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("since", UtcDateTime(), nullable=False),
        sa.Column("blocked_until", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("host", name=op.f("pk_login_host")),
    )
    op.create_index("ix_login_host_since", "login_host", ["since"])


def downgrade() -> None:
    """Forget them."""
    op.drop_table("login_host")
