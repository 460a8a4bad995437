"""one row of the ledger for each attempt at a model call, reservations included"""

import sqlalchemy as sa
from alembic import op

from longhaul.db.models import UtcDateTime

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("usage_ledger", sa.Column("attempt", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("usage_ledger", sa.Column("status", sa.String(length=16), nullable=False, server_default="booked"))
    op.add_column("usage_ledger", sa.Column("reserved_microdollars", sa.BigInteger(), nullable=True))
    op.add_column("usage_ledger", sa.Column("reserved_until", UtcDateTime(timezone=True), nullable=True))
    op.drop_index("ix_ledger_session", table_name="usage_ledger")
    op.create_index("ix_ledger_turn", "usage_ledger", ["session_id", "turn_id"])


def downgrade() -> None:
    op.execute("DELETE FROM usage_ledger WHERE status = 'reserved'")
    op.drop_index("ix_ledger_turn", table_name="usage_ledger")
    op.create_index("ix_ledger_session", "usage_ledger", ["session_id"])
    for name in ("reserved_until", "reserved_microdollars", "status", "attempt"):
        op.drop_column("usage_ledger", name)
