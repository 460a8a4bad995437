"""what a message chooses: mode, tier, model and effort"""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0013b"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("messages", sa.Column("choice", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("messages", "choice")
