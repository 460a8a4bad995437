"""Ask and wait: one question, one answer. For scripts, cron and tests.

python examples/ask_and_wait.py "What is 17 * 23?"
"""

import os
import sys

from longhaul_client import Longhaul

question = sys.argv[1] if len(sys.argv) > 1 else "What is 17 * 23?"
with Longhaul(os.environ.get("LONGHAUL_API_URL", "http://127.0.0.1:8700")) as longhaul:
    answer = longhaul.sessions.create().ask(question, timeout=120)
print(answer.text)
for call in answer.tool_calls:
    print(f"{call.name}({call.arguments}) gave {call.output}")
print(f"{answer.usage.prompt_tokens + answer.usage.completion_tokens} tokens")
