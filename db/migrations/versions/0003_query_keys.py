"""Query keys: folded person names, attributes of results, an index that counts instances.

Revision ID: 0003_query_keys
Revises: 0002_strikes
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from db.columns import Json
from db.names import folded_name

revision = "0003_query_keys"
down_revision = "0002_strikes"
branch_labels = None
depends_on = None

ORDERED = sa.String(256).with_variant(sa.String(256, collation="C"), "postgresql")
STUDY = sa.table(
    "study",
    sa.column("id", sa.BigInteger),
    sa.column("patient_name", sa.String),
    sa.column("patient_name_key", sa.String),
    sa.column("referring_physician_name", sa.String),
    sa.column("referring_physician_key", sa.String),
)
RESULT = sa.table("result", sa.column("kind", sa.String), sa.column("attributes", Json))
_AT_ONCE = 5000


def upgrade() -> None:
    """Bring the schema to this revision."""
    for name in ("patient_name_key", "referring_physician_key"):
        op.add_column("study", sa.Column(name, ORDERED, nullable=False, server_default=""))
    empty = sa.text("'{}'")
    op.add_column("result", sa.Column("attributes", Json, nullable=False, server_default=empty))
    connection = op.get_bind()
    _fold_names(connection)
    modality = sa.case((RESULT.c.kind == "segmentation", "SEG"), else_="SR")
    for kind, one in connection.execute(sa.select(RESULT.c.kind, modality).distinct()).all():
        connection.execute(
            RESULT.update().where(RESULT.c.kind == kind).values(attributes={"Modality": one})
        )
    op.drop_index("ix_study_patient_name", "study")
    op.create_index("ix_study_patient_name_key", "study", ["patient_name_key"])
    op.drop_index("ix_instance_study_id", "instance")
    op.create_index("ix_instance_study_id", "instance", ["study_id", "purged_at", "conflict"])


def downgrade() -> None:
    """Go back to the revision before."""
    op.drop_index("ix_instance_study_id", "instance")
    op.create_index("ix_instance_study_id", "instance", ["study_id"])
    op.drop_index("ix_study_patient_name_key", "study")
    op.create_index("ix_study_patient_name", "study", ["patient_name"])
    op.drop_column("result", "attributes")
    op.drop_column("study", "referring_physician_key")
    op.drop_column("study", "patient_name_key")


def _fold_names(connection: sa.Connection) -> None:
    """Fold the names of all studies, some at a time."""
    last = 0
    while True:
        rows = connection.execute(
            sa.select(STUDY.c.id, STUDY.c.patient_name, STUDY.c.referring_physician_name)
            .where(STUDY.c.id > last)
            .order_by(STUDY.c.id)
            .limit(_AT_ONCE)
        ).all()
        if not rows:
            return
        last = rows[-1][0]
        connection.execute(
            STUDY.update()
            .where(STUDY.c.id == sa.bindparam("of_id"))
            .values(
                patient_name_key=sa.bindparam("name"),
                referring_physician_key=sa.bindparam("physician"),
            ),
            [
                {
                    "of_id": row[0],
                    "name": folded_name(row[1])[:256],
                    "physician": folded_name(row[2])[:256],
                }
                for row in rows
            ],
        )
