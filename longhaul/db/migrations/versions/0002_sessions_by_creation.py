"""sessions are listed by their creation

An index on `updated_at` changed with every stored row, and no query used it.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_sessions_user_created", "sessions", ["user_id", "created_at", "id"])
    op.drop_index("ix_sessions_user", "sessions")


def downgrade() -> None:
    op.create_index("ix_sessions_user", "sessions", ["user_id", "updated_at"])
    op.drop_index("ix_sessions_user_created", "sessions")
