"""Attacks on everything around the workers: APIs, clients, Redis, the database, Temporal, the model."""
