"""forks and retries: where a session's conversation comes from, and which failed turn another one took up again"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sessions", sa.Column("forked_from", sa.String(64), nullable=True))
    op.add_column("turns", sa.Column("retry_of", sa.String(64), nullable=True))
    op.add_column("turns", sa.Column("forked_from", sa.String(64), nullable=True))


def downgrade() -> None:
    op.drop_column("turns", "forked_from")
    op.drop_column("turns", "retry_of")
    op.drop_column("sessions", "forked_from")
