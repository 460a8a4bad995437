#!/usr/bin/env bash
# A session, a streamed answer and the stored conversation, with curl alone.
set -euo pipefail
api="${LONGHAUL_API_URL:-http://127.0.0.1:8700}/v1"
json=(-H 'content-type: application/json')

session=$(curl -sSf "$api/sessions" "${json[@]}" -d '{"title": "A tour"}' | sed -E 's/.*"id":"([^"]+)".*/\1/')
curl -sSfN "$api/sessions/$session/stream" "${json[@]}" -d '{"message": "What is 12 * (3 + 4)?"}'
curl -sSf "$api/sessions/$session?limit=10"
echo
