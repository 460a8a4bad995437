"""labels of sessions: what their owners noted about them"""

import sqlalchemy as sa
from alembic import op

revision = "0013b"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sessions", sa.Column("labels", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("sessions", "labels")
