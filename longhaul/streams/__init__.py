"""Live text on its way from the worker to the people who watch: one Redis Stream per turn, never the truth."""
