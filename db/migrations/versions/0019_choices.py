"""What people choose: to see names of patients, and to go on with a study as it is.

Revision ID: 0019_choices
Revises: 0018_audit_positions
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019_choices"
down_revision = "0018_audit_positions"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.add_column("account", sa.Column("patients_shown", sa.Boolean(), nullable=True))
    op.add_column(
        "job", sa.Column("complete_by", sa.String(length=64), nullable=False, server_default="")
    )


def downgrade() -> None:
    """Forget the choices."""
    op.drop_column("job", "complete_by")
    op.drop_column("account", "patients_shown")
