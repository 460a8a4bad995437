"""Tool workers: workers without database, Redis or keys, which get arguments from the API and give it results.

The order of one call:

1. The workflow lets an ordinary worker look at the call (consent, budget, arguments) and store its row.
2. It schedules `run_remote_tool` on the tool's queue, with ids only. The activity's id is the id of the row.
3. The tool worker that gets the task proves it to the API (`keys.py`) and gets a token for this attempt (`tokens.py`).
4. With the token it reports progress and gives the result, which the API keeps in the row (`calls.py`).
5. The workflow lets an ordinary worker make the result a message.
"""
