"""The endpoint keeps its own bill. The ledger says the same to the microdollar wherever the endpoint told its usage."""

from testkit.bill import SETTINGS, TURNS, use_all
from testkit.pool import ProductOptions
from testkit.product import Product

PRODUCT: ProductOptions = {"own_model": True, "workers": 2, "settings": SETTINGS}


async def test_the_ledger_says_what_the_endpoint_bills(product: Product) -> None:
    found = await use_all(product, [(*TURNS[first:], *TURNS[:first])[:5] for first in range(8)])
    assert found.turns > 8
    assert found.booked > 60
    assert found.estimated > 15
    assert (found.wrong, found.doubled, found.without_row) == ([], [], 0), "each billed call has one row"
    assert abs(found.guessed / found.unknown - 1) < 0.25, f"estimated {found.guessed}, billed {found.unknown}"
