"""Real servers, a real Longhaul on them, a client that notes all it sees, and the checks that must hold afterwards.

`servers` starts Temporal, Redis, PostgreSQL and the offline model; `product` runs workers and APIs on them;
`client` talks to an API; `checks` reads the rows and the streams; `wait` replaces every hopeful sleep.
"""
