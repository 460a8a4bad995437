"""accounts of users with the entries that changed them; the agent of each ledger row"""

import sqlalchemy as sa
from alembic import op

from longhaul.db.models import UtcDateTime

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "user_accounts",
        sa.Column("user_id", sa.String(255), primary_key=True),
        sa.Column("email", sa.String(320), nullable=True),
        sa.Column("claimed_tier", sa.String(64), nullable=True),
        sa.Column("tier", sa.String(64), nullable=True),
        sa.Column("created_at", UtcDateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_accounts_email", "user_accounts", ["email"])
    op.create_table(
        "account_entries",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("user_id", sa.String(255), nullable=False),
        sa.Column("actor_id", sa.String(255), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("credits", sa.BigInteger(), nullable=False),
        sa.Column("day_microdollars", sa.BigInteger(), nullable=False),
        sa.Column("week_microdollars", sa.BigInteger(), nullable=False),
        sa.Column("tier", sa.String(64), nullable=True),
        sa.Column("created_at", UtcDateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_account_entries_user", "account_entries", ["user_id", "created_at"])
    op.add_column("usage_ledger", sa.Column("agent", sa.String(100), nullable=True))
    op.create_index("ix_ledger_created", "usage_ledger", ["created_at"])


def downgrade() -> None:
    op.drop_index("ix_ledger_created", table_name="usage_ledger")
    op.drop_column("usage_ledger", "agent")
    op.drop_table("account_entries")
    op.drop_table("user_accounts")
