"""Turns as seen from outside their workflow: deliver a message, ask how a turn stands, stop it, repair what is left."""
