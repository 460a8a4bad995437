"""Live text on its way from the worker to its viewers: one Redis Stream per turn. The rows are the truth."""
