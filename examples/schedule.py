"""A schedule: a message every weekday morning, run once right now.

python examples/schedule.py "What is 17 * 23?"
"""

import os
import sys
import time

from longhaul_client import Longhaul

question = sys.argv[1] if len(sys.argv) > 1 else "What is 17 * 23?"
with Longhaul(os.environ.get("LONGHAUL_API_URL", "http://127.0.0.1:8700")) as longhaul:
    schedule = longhaul.schedules.create(message=question, cron="0 9 * * 1-5", time_zone="Europe/Vienna")
    print("next runs:", *(schedule.next_runs or [])[:3])
    longhaul.schedules.trigger(schedule.id)
    while not (runs := longhaul.schedules.runs(schedule.id)) or runs[0].turn_status in (None, "running"):
        if runs and runs[0].reason:  # a limit is reached
            sys.exit(runs[0].reason)
        time.sleep(0.3)
    run = runs[0]
    print(f"{run.status}: {run.turn_status}")
    print(longhaul.sessions.get(run.session_id or "").page().messages[-1].content)
    longhaul.schedules.delete(schedule.id)
