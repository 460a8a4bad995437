"""A message that was accepted and never signalled is answered without a further post."""

from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import update

from longhaul.db import acceptance
from longhaul.db.models import MessageRow, utc_now
from testkit.checks import check_rows
from testkit.pool import ProductOptions
from testkit.product import Product
from testkit.wait import until

PRODUCT: ProductOptions = {
    "backend": "postgresql",
    "settings": {"LONGHAUL_REDELIVER_AFTER": "1", "LONGHAUL_MODEL_SMALL": ""},
}


@pytest.mark.backends("postgresql")
async def test_rows_without_a_signal(product: Product) -> None:
    """Two of them: one turn answers both."""
    session = await product.api.create_session()
    user = (await product.api.session(session)).get("user_id", "local")
    ids = [str(uuid4()), str(uuid4())]
    async with product.database.write() as connection:
        for message_id in ids:
            accepted = await acceptance.accept(
                connection,
                session_id=session,
                user_id=user,
                message_id=message_id,
                content="6*7",
                context=None,
                limit=0,
            )
            row = update(MessageRow).where(MessageRow.id == accepted.row_id)
            await connection.execute(row.values(created_at=utc_now() - timedelta(seconds=60)))

    async def answered() -> bool:
        turns = await product.api.turns(session)
        return [turn["status"] for turn in turns] == ["completed"]

    await until(answered, what="the messages are answered")
    await check_rows(product.database, {session: ids})
