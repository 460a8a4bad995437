"""versions of messages: rows that another turn has replaced stay, but are no longer part of the conversation"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("messages", sa.Column("version_of", sa.String(64), nullable=True))
    op.add_column("messages", sa.Column("replaced_by", sa.String(64), nullable=True))
    versions = sa.text("version_of IS NOT NULL")
    op.create_index(
        "ix_messages_versions",
        "messages",
        ["session_id", "version_of"],
        postgresql_where=versions,
        sqlite_where=versions,
    )


def downgrade() -> None:
    op.drop_index("ix_messages_versions", table_name="messages")
    op.drop_column("messages", "replaced_by")
    op.drop_column("messages", "version_of")
