"""Random faults against a running Longhaul under load, and a count of what was lost. It must be nothing.

`load` plays the users, `breakages` breaks parts, `verdict` checks what is stored and shown, `run` combines them; `race`
aims messages at the last moments of turns. `python -m bench.chaos` is the command line.
"""
