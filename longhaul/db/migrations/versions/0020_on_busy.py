"""messages that wait for a turn of their own, and turns whose rows the next turn takes out of the conversation"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("messages", sa.Column("queued", sa.Boolean(), nullable=True))
    op.add_column("sessions", sa.Column("rolled_back_turn_id", sa.String(64), nullable=True))


def downgrade() -> None:
    op.drop_column("sessions", "rolled_back_turn_id")
    op.drop_column("messages", "queued")
