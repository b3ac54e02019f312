"""What destinations take.

Revision ID: 0011_probes
Revises: 0010_workitems
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from db.columns import Json, UtcDateTime

revision = "0011_probes"
down_revision = "0010_workitems"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "destination_probe",
        sa.Column("destination", sa.String(length=128), nullable=False),
        sa.Column("probed_at", UtcDateTime(), nullable=False),
        sa.Column("accepted", Json, nullable=False),
        sa.PrimaryKeyConstraint("destination", name="pk_destination_probe"),
    )


def downgrade() -> None:
    """Forget what destinations answered."""
    op.drop_table("destination_probe")
