"""an index of the messages that wait"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    waiting = sa.text("sequence IS NULL")
    op.create_index("ix_messages_waiting", "messages", ["session_id"], postgresql_where=waiting, sqlite_where=waiting)


def downgrade() -> None:
    op.drop_index("ix_messages_waiting", table_name="messages")
