"""Random faults against a running Longhaul under load, and a count of what was lost. It must be nothing.

`load` is the people, `faults` what goes wrong, `verdict` what holds afterwards, `run` puts them together.
"""
