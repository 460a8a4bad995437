"""Commands of models, run in a sandbox."""
