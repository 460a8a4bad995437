"""Prometheus metrics."""

from prometheus_client import Counter, Gauge, Histogram

ACCEPTED = Counter("longhaul_messages_accepted_total", "Messages accepted.", ["disposition"])
REFUSED = Counter("longhaul_messages_refused_total", "Messages refused.", ["reason"])
STREAMS_OPEN = Gauge("longhaul_streams_open", "Event streams open in this process.")
FALLBACKS = Counter("longhaul_stream_fallbacks_total", "Event streams that switched from Redis to rows.")
LATENCY = Histogram(
    "longhaul_http_request_seconds",
    "Time to the first byte of an answer.",
    ["method", "route", "status"],
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
