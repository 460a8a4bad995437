"""The offline model: an OpenAI-compatible server of its own, for when no real model is connected.

It says in its answers what it is. An answer depends on the request alone, so that demos, tests and benchmarks can
rely on it. `script.py` lists what it can be asked to do and what can be made to go wrong, `english.py` the phrases
that people type. It speaks HTTP so that the same client code runs against it and against a real model.
"""
