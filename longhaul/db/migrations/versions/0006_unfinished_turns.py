"""an index of the turns that have not ended"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    unfinished = sa.text("ended_at IS NULL")
    op.create_index("ix_turns_unfinished", "turns", ["user_id"], postgresql_where=unfinished, sqlite_where=unfinished)


def downgrade() -> None:
    op.drop_index("ix_turns_unfinished", table_name="turns")
