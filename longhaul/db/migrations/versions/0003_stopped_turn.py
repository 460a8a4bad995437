"""the newest stopped turn of a session"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sessions", sa.Column("stopped_turn_id", sa.String(length=64), nullable=True))


def downgrade() -> None:
    op.drop_column("sessions", "stopped_turn_id")
