"""In which transfer syntaxes instances of each SOP class came.

Revision ID: 0016_held_syntaxes
Revises: 0015_series_of_instances
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016_held_syntaxes"
down_revision = "0015_series_of_instances"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "held_syntax",
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("transfer_syntax_uid", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("sop_class_uid", "transfer_syntax_uid", name="pk_held_syntax"),
    )
    op.execute(
        "INSERT INTO held_syntax (sop_class_uid, transfer_syntax_uid) "
        "SELECT DISTINCT sop_class_uid, transfer_syntax_uid FROM instance"
    )


def downgrade() -> None:
    """Forget in which syntaxes instances came."""
    op.drop_table("held_syntax")
