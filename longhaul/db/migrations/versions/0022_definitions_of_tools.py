"""the definition of the tool that a parked call was asked about"""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("parked_calls", sa.Column("definition", sa.String(length=64), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("parked_calls", "definition")
