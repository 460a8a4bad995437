"""how far a session's estimate of tokens was off"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sessions", sa.Column("token_scale", sa.Float()))


def downgrade() -> None:
    op.drop_column("sessions", "token_scale")
