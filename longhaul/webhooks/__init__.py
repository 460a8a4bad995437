"""Webhooks: which addresses they may have, what is sent to them, and who is woken to send it."""
