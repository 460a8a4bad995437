"""The offline model: an OpenAI-compatible server of our own, for when no real model is connected.

It is a stand-in and says so in its answers. What it says and does is a function of the request alone,
so that demos, tests and benchmarks can rely on it; the rules are in `rules.py`, the faults that can be
asked for in `faults.py`. It speaks HTTP so that the very same client code runs against it and a real model.
"""

from offline_model.app import OfflineApp, create_app
from offline_model.options import OfflineOptions

__all__ = ["OfflineApp", "OfflineOptions", "create_app"]
