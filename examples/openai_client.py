"""OpenAI's own client: each completion is a durable turn, with Longhaul's tools."""

import os
from uuid import uuid4

from openai import OpenAI

url = os.environ.get("LONGHAUL_API_URL", "http://127.0.0.1:8700")
client = OpenAI(base_url=f"{url}/v1", api_key=os.environ.get("LONGHAUL_TOKEN", "none"))
# With the same key, the same request gets the same answer, also when the connection or the API died.
answer = client.chat.completions.create(
    model="standard",
    messages=[{"role": "user", "content": "What is 17 * 23?"}],
    user="example",
    extra_headers={"Idempotency-Key": str(uuid4())},
)
print(answer.choices[0].message.content)
