"""The embedded local stack: Temporal, Redis, the offline model, one worker and the API on one machine."""
