"""The atomic steps on the keys of one turn: Lua scripts for Redis 6.2 and later, with typed results.

A stream is open, sealed or withdrawn. It is open from `begin` on, while its hash of writers exists. It is sealed when
its last entry is `finish`. It is withdrawn when a single entry has replaced it, which sends readers to the rows.
Sealed and withdrawn streams never change again, and Redis itself refuses every entry behind `FINISH_ID`.

The hash of writers holds: `server`, the run id of the Redis process that created the stream (a Redis that restarted
from an older snapshot has another one, and its stream may have a hole); `bytes`, the size of all parts so far;
`attempt:<activity>`, the newest attempt of an activity that was attempted again; `once:<name>` for each part that must
not be written twice.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from longhaul.streams.events import (
    FINISH_ID,
    OUTCOME_ID,
    START_ID,
    UNSEALED_TTL_S,
    WITHDRAWN,
    Part,
    encode,
    start_part,
    stream_key,
    writers_key,
)


class WriteStatus(IntEnum):
    """What became of a write."""

    WRITTEN = 1
    LOST = 0  # the stream is missing or has a hole; it is withdrawn now
    REPLACED = -1  # a later attempt of the same activity writes
    TOO_LARGE = -2  # the stream would exceed its limit; it is withdrawn now
    ENDED = -3  # the stream was sealed or withdrawn before


class SealStatus(IntEnum):
    """What became of an attempt to seal a stream."""

    ENDED = 1  # it is sealed now, or it had been sealed or withdrawn before
    LOST = 0  # the stream is missing or has a hole; it is withdrawn now
    CHANGED = -1  # it has an entry behind the expected one; nothing was written


@dataclass(frozen=True)
class ActivityAttempt:
    """The attempt of an activity that writes. A later attempt that claims the stream shuts out earlier ones.

    A worker that hung and was taken for dead may come back to life and go on where it stopped.
    """

    activity: str = ""
    attempt: int = 1


_COMMON = f"""
local FINISH = '{FINISH_ID}'
local function server()
    local info = redis.pcall('INFO', 'server')
    return type(info) == 'string' and string.match(info, 'run_id:(%w+)') or ''
end
local function last_id()
    local entries = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
    return #entries > 0 and entries[1][1] or ''
end
local function withdraw()
    redis.call('DEL', KEYS[1], KEYS[2])
    redis.call('XADD', KEYS[1], FINISH, 'e', '{WITHDRAWN.decode()}')
    redis.call('EXPIRE', KEYS[1], {UNSEALED_TTL_S})
end
"""

_BEGIN = (
    _COMMON
    + f"""
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)
if #first > 0 then return first[1][1] == '{START_ID}' and 1 or 0 end
redis.call('XADD', KEYS[1], '{START_ID}', 'e', ARGV[1])
redis.call('HSET', KEYS[2], 'server', server())
redis.call('EXPIRE', KEYS[1], {UNSEALED_TTL_S})
redis.call('EXPIRE', KEYS[2], {UNSEALED_TTL_S})
return 1
"""
)

# Arguments: activity, attempt, the id of this writer's previous entry ('' before its first one), the limit in bytes
# (0: none), then pairs of a name ('' or the name of a part that must not be written twice) and a part.
_WRITE = (
    _COMMON
    + """
local known = redis.call('HGET', KEYS[2], 'server')
if not known then
    if last_id() == FINISH then return {-3, ''} end
    withdraw()
    return {0, ''}
end
local newest = redis.call('HGET', KEYS[2], 'attempt:' .. ARGV[1])
if newest and tonumber(newest) > tonumber(ARGV[2]) then return {-1, ''} end
local whole
if ARGV[3] == '' then
    whole = known == server() and redis.call('EXISTS', KEYS[1]) == 1
else
    whole = #redis.call('XRANGE', KEYS[1], ARGV[3], ARGV[3]) > 0
end
if not whole then
    withdraw()
    return {0, ''}
end
local size = 0
for i = 6, #ARGV, 2 do size = size + #ARGV[i] end
local all = redis.call('HINCRBY', KEYS[2], 'bytes', size)
if tonumber(ARGV[4]) > 0 and all > tonumber(ARGV[4]) then
    withdraw()
    return {-2, ''}
end
local id = ARGV[3]
for i = 5, #ARGV, 2 do
    if ARGV[i] == '' or redis.call('HSETNX', KEYS[2], 'once:' .. ARGV[i], '1') == 1 then
        id = redis.call('XADD', KEYS[1], '*', 'e', ARGV[i + 1])
    end
end
return {1, id}
"""
)

# Arguments: activity, attempt. Shuts out earlier attempts; 0 if a later one has been here.
_CLAIM = """
if redis.call('HEXISTS', KEYS[2], 'server') == 0 then return 1 end
local newest = redis.call('HGET', KEYS[2], 'attempt:' .. ARGV[1])
if newest and tonumber(newest) > tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[2], 'attempt:' .. ARGV[1], ARGV[2])
return 1
"""

# Arguments: the id of the newest entry that the caller knows ('' if it does not matter), seconds that the stream is
# kept, the outcome ('' if there is none), `finish`, then the parts before both.
_SEAL = (
    _COMMON
    + f"""
local known, last = redis.call('HGET', KEYS[2], 'server'), last_id()
if last == FINISH then return 1 end
if not known or last == '' or known ~= server() then
    withdraw()
    return 0
end
if ARGV[1] ~= '' and ARGV[1] ~= last then return -1 end
for i = 5, #ARGV do redis.call('XADD', KEYS[1], '*', 'e', ARGV[i]) end
if ARGV[3] ~= '' then redis.call('XADD', KEYS[1], '{OUTCOME_ID}', 'e', ARGV[3]) end
redis.call('XADD', KEYS[1], FINISH, 'e', ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('DEL', KEYS[2])
return 1
"""
)

_WITHDRAW = (
    _COMMON
    + """
if last_id() ~= FINISH then withdraw() end
return 1
"""
)


async def begin(redis: "Redis", turn_id: str) -> bool:
    """Create the stream with its `start` part, unless it exists; False if it was withdrawn."""
    return bool(await _run(redis, _BEGIN, turn_id, encode(start_part(turn_id))))


async def write(
    redis: "Redis",
    turn_id: str,
    writer: ActivityAttempt,
    previous: str,
    max_bytes: int,
    parts: Iterable[tuple[str, Part]],
) -> tuple[WriteStatus, str]:
    """Append parts, all or none; the status, and the id of this writer's newest entry."""
    arguments: list[str | int | bytes] = [writer.activity, writer.attempt, previous, max_bytes]
    for name, part in parts:
        arguments += (name, encode(part))
    status, newest = await _run(redis, _WRITE, turn_id, *arguments)
    return WriteStatus(status), newest.decode()


async def claim(redis: "Redis", turn_id: str, writer: ActivityAttempt) -> bool:
    """Shut out earlier attempts of the activity; False if a later one has done so to this one."""
    return bool(await _run(redis, _CLAIM, turn_id, writer.activity, writer.attempt))


async def seal(
    redis: "Redis", turn_id: str, parts: Iterable[Part], outcome: Part | None, *, ttl_s: float, behind: str = ""
) -> SealStatus:
    """Write the last parts, the outcome and `finish` in one step, behind the entry `behind` if one is named."""
    last = encode(outcome) if outcome is not None else b""
    finish = encode({"type": "finish"})
    status = await _run(
        redis, _SEAL, turn_id, behind, max(1, int(ttl_s)), last, finish, *(encode(part) for part in parts)
    )
    return SealStatus(status)


async def withdraw(redis: "Redis", turn_id: str) -> None:
    """Send readers to the rows for good, unless the stream is sealed."""
    await _run(redis, _WITHDRAW, turn_id)


async def _run(redis: "Redis", script: str, turn_id: str, *arguments: str | int | bytes) -> Any:
    """Run a script by its hash. Only if Redis does not know it, send its text: then it has not run."""
    keys = (stream_key(turn_id), writers_key(turn_id))
    try:
        return await redis.evalsha(_digest(script), 2, *keys, *arguments)
    except NoScriptError:
        return await redis.eval(script, 2, *keys, *arguments)


@cache
def _digest(script: str) -> str:
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
