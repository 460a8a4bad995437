"""Notices that a session was stopped, from the process that asked Temporal for the Stop to all workers, by Redis.

A notice stops nothing. It makes the running calls of that session, and of the sub-sessions below it, heartbeat at once,
and Temporal's answer to a heartbeat says that the call is cancelled. So a notice that is lost, doubled or sent for
nothing costs nothing but time: without one, a call learns of the Stop with its next regular heartbeat.
"""

import asyncio
import logging
from collections.abc import Callable

from redis.asyncio import Redis

from longhaul.redis import FAULTS

log = logging.getLogger(__name__)
CHANNEL = "longhaul:stops"
#: After so long a silence Redis is asked whether it is there; after another one the connection counts as lost.
SILENCE_S = 5.0
RECONNECT_S = 1.0


async def publish(redis: "Redis", session_id: str) -> None:
    """Tell all workers that this session was stopped. Without Redis, heartbeats tell them."""
    try:
        await redis.publish(CHANNEL, session_id)
    except FAULTS as error:
        log.warning("session %s stops only with the next heartbeats of its calls: %s", session_id, error)


async def listen(redis: "Redis", stopped: Callable[[str], None]) -> None:
    """Call `stopped` with the session of each notice, until this is cancelled; connect again when Redis is back."""
    reachable = True
    while True:
        try:
            await redis.initialize()  # A cluster's client does not know its nodes before.
            async with redis.pubsub() as subscription:
                await subscription.subscribe(CHANNEL)
                asked = False
                while True:
                    message = await subscription.get_message(timeout=SILENCE_S)
                    if message is None:
                        if asked:
                            raise TimeoutError("Redis does not answer")
                        await subscription.ping()
                    elif message["type"] == "message":
                        stopped(message["data"].decode())
                    asked, reachable = message is None, True
        except FAULTS as error:
            log.log(
                logging.WARNING if reachable else logging.DEBUG,
                "no notices of stopped sessions, heartbeats bring them: %s",
                error,
            )
            reachable = False
        await asyncio.sleep(RECONNECT_S)
