"""tools that clients declare and run themselves"""

import sqlalchemy as sa
from alembic import op

from longhaul.db.models import UtcDateTime

revision = "0019"
down_revision = "0023b"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "client_tools",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("session_id", sa.String(64), nullable=False),
        sa.Column("tools", sa.JSON(), nullable=False),
        sa.Column("created_at", UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_client_tools_session", "client_tools", ["session_id"])
    op.add_column("messages", sa.Column("client_tools", sa.String(64), nullable=True))


def downgrade() -> None:
    op.drop_column("messages", "client_tools")
    op.drop_table("client_tools")
