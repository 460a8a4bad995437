"""which model wrote a row, the model that a session has chosen, tokens that were written to a provider's cache"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("messages", sa.Column("model", sa.String(200), nullable=True))
    op.add_column("sessions", sa.Column("model", sa.String(200), nullable=True))
    op.add_column("usage_ledger", sa.Column("cache_creation_tokens", sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("usage_ledger", "cache_creation_tokens")
    op.drop_column("sessions", "model")
    op.drop_column("messages", "model")
