"""summaries of long conversations, and what users say about themselves"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sessions", sa.Column("compaction_due", sa.Boolean()))
    op.add_column("sessions", sa.Column("summary_id", sa.String(length=64)))
    op.add_column("sessions", sa.Column("summarised_until", sa.Integer()))
    op.create_table(
        "user_profiles",
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("user_id"),
    )


def downgrade() -> None:
    op.drop_table("user_profiles")
    for column in ("summarised_until", "summary_id", "compaction_due"):
        op.drop_column("sessions", column)
