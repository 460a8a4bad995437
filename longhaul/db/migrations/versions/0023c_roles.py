"""roles of users, for the models that they may choose"""

import sqlalchemy as sa
from alembic import op

revision = "0023c"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("user_accounts", sa.Column("claimed_roles", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("user_accounts", "claimed_roles")
