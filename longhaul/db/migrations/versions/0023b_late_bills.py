"""ids by which an endpoint is asked for the bill of an estimated call"""

import sqlalchemy as sa
from alembic import op

revision = "0023b"
down_revision = "0020b"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("usage_ledger", sa.Column("generation_id", sa.String(length=200), nullable=True))
    op.add_column("usage_ledger", sa.Column("asked", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("usage_ledger", sa.Column("ask_at", sa.DateTime(timezone=True), nullable=True))
    due = sa.text("ask_at IS NOT NULL")
    op.create_index("ix_ledger_ask", "usage_ledger", ["ask_at"], postgresql_where=due, sqlite_where=due)


def downgrade() -> None:
    op.drop_index("ix_ledger_ask", "usage_ledger")
    for name in ("ask_at", "asked", "generation_id"):
        op.drop_column("usage_ledger", name)
