"""What the worker and the API share and neither owns: contracts, settings, storage, model client, tools, streams."""

__version__ = "0.1.0"
