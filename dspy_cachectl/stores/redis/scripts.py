"""What the server runs: each is one step, whoever else does the same.

The one key of a script is what its slot is known by; all that it uses has the same tag. A write comes first that a
server without memory refuses, so such a script does nothing at all. Nothing here is newer than Redis 6.2.
"""

from __future__ import annotations

from dspy_cachectl.stores.redis.commands import Script
from dspy_cachectl.stores.redis.layout import HEAD

_HEAD = f"""
local function parts(name)
  local head = redis.call('GETRANGE', name, 0, {HEAD.size - 1})
  if #head < {HEAD.size} then return nil end
  local version, flags, stored, hash, filed, marked = struct.unpack('<BBdc8I4I4', head)
  local rest = redis.call('GETRANGE', name, {HEAD.size}, {HEAD.size - 1} + filed + marked)
  return hash, string.sub(rest, 1, filed), string.sub(rest, filed + 1), stored
end
local function list(base, label)
  return base .. 'z:' .. string.sub(redis.sha1hex(label), 1, 20)
end
local function unlist(base, label, member)
  local name = list(base, label)
  redis.call('ZREM', name, member)
  if redis.call('EXISTS', name) == 0 then redis.call('ZREM', base .. 'labels', label) end
end
"""

PUT = Script(
    _HEAD
    + """
local base, member, label, stored, ttl, value, first, instead = unpack(ARGV)
local hash, before, mark = parts(KEYS[1])
if hash and first == '1' and hash ~= instead then return {redis.call('GET', KEYS[1])} end
redis.call('SET', KEYS[1], value, 'PX', ttl)
redis.call('ZADD', list(base, label), stored, member)
redis.call('ZADD', base .. 'labels', 'GT', stored, label)
if hash then
  if before ~= label then unlist(base, before, member) end
  redis.call('HDEL', base .. 'served', member)
end
return {false, mark or ''}
""",
    lambda said: isinstance(said, list) and [one is None for one in said] in ([False], [True, False]),
)
"""Keep an entry, unless another is there. Base, member, label, time, milliseconds, entry, whether only the first stays,
the hash of what may go. Returns what stays; or false, and the mark of what was replaced."""

REWRITE = Script(
    _HEAD
    + """
if parts(KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
return 1
"""
)
"""Put an entry in the place of one with a hash; all else of it stays. The hash, the entry. Returns whether it was."""

DELETE = Script(
    _HEAD
    + """
local base, member, when = unpack(ARGV)
local hash, label, mark, stored = parts(KEYS[1])
if not hash or (when ~= '' and stored ~= tonumber(when)) then return {0, ''} end
redis.call('UNLINK', KEYS[1])
unlist(base, label, member)
redis.call('HDEL', base .. 'served', member)
return {1, mark}
"""
)
"""Remove an entry. Base, member, when what is meant was stored, or nothing. Returns whether it was there, its mark."""

_MARKS = """
local function firsts(name)
  local found, seen = {}, {}
  for _, member in ipairs(redis.call('ZRANGE', name, 0, -1)) do
    local rest = string.match(member, '^(%Z*)')
    if not seen[rest] then
      seen[rest] = 0
      if #found < 2 then found[#found + 1] = member end
    end
    seen[rest] = seen[rest] + 1
  end
  return found, seen
end
"""

MARK = Script(
    _MARKS
    + """
local member, stored, ttl = unpack(ARGV)
local found, seen = firsts(KEYS[1])
local rest, names = string.match(member, '^(%Z*)'), 0
for _ in pairs(seen) do names = names + 1 end
if (seen[rest] or 0) < 4 and (seen[rest] or names < 4) then redis.call('ZADD', KEYS[1], 'NX', stored, member) end
redis.call('PEXPIRE', KEYS[1], ttl)
return found
"""
)
"""Note the mark of an entry: four of a name, and four entries for each, tell all that is asked. Member, time,
milliseconds. Returns what `MARKED` would have before."""

MARKED = Script(_MARKS + "return (firsts(KEYS[1]))")
"""Return the first entries with two marks of a name."""

SERVED = Script(
    """
local base, now = ARGV[1], ARGV[2]
for at = 3, #ARGV, 3 do
  local member, count = ARGV[at + 1], tonumber(ARGV[at + 2])
  if redis.call('EXISTS', ARGV[at]) == 1 then
    local before = redis.call('HGET', base .. 'served', member)
    if before then count = count + tonumber(string.match(before, '^%d+')) end
    redis.call('HSET', base .. 'served', member, string.format('%d %s', count, now))
  end
end
return 1
"""
)
"""Add to how often entries were served. Base, time; then of each its name, member and number."""

USED = Script(
    """
for at = 1, #ARGV, 2 do redis.call('HINCRBYFLOAT', KEYS[1], ARGV[at], ARGV[at + 1]) end
return redis.call('HLEN', KEYS[1])
"""
)
"""Add to what is counted. Of each its field and the number. Returns how many fields there are."""

COUNT_UNDER = Script(
    """
for at = 1, #ARGV, 2 do
  local amount = redis.call('HGET', KEYS[1], ARGV[at])
  if amount then
    redis.call('HINCRBYFLOAT', KEYS[1], ARGV[at + 1], amount)
    redis.call('HDEL', KEYS[1], ARGV[at])
  end
end
return 1
"""
)
"""Count under other fields what is counted. Of each its field and the other."""

LABELS = Script(
    _HEAD
    + """
local found = {}
for at, label in ipairs(redis.call('ZRANGE', KEYS[1], ARGV[2], ARGV[3])) do
  found[2 * at - 1] = label
  found[2 * at] = redis.call('ZCARD', list(ARGV[1], label))
end
return found
"""
)
"""Return labels, each with the number of its entries. Base, the first, the last."""

FORGET = Script(
    _HEAD
    + """
local base, label, gone = ARGV[1], ARGV[2], 0
for at = 3, #ARGV, 2 do
  local hash, its = parts(ARGV[at])
  if not hash then redis.call('HDEL', base .. 'served', ARGV[at + 1]) end
  if its ~= label then
    unlist(base, label, ARGV[at + 1])
    gone = gone + 1
  end
end
return gone
"""
)
"""Take out of a label's list what is gone, or is filed under another. Base, label; then of each its
name and member. Returns how many."""

BEGINNING = Script(
    _HEAD
    + """
local labels = redis.call('ZRANGE', KEYS[1], ARGV[2], ARGV[3])
local found = {#labels}
for _, label in ipairs(labels) do
  for _, member in ipairs(redis.call('ZRANGE', list(ARGV[1], label), 0, -1)) do
    for at = 4, #ARGV do
      if string.sub(member, 1, #ARGV[at]) == ARGV[at] then
        local stored = redis.call('ZSCORE', list(ARGV[1], label), member)
        found[#found + 1], found[#found + 2], found[#found + 3] = label, member, stored
        break
      end
    end
  end
end
return found
"""
)
"""Return what begins with one of some texts. Base, the first label, the last, the texts. Returns how many labels there
were; then of each the label, the member, the time."""

LIST = Script(
    _HEAD
    + """
local base, member = ARGV[1], ARGV[2]
local hash, label, mark, stored = parts(KEYS[1])
if not hash then return 0 end
local when = string.format('%.17g', stored)
redis.call('ZADD', base .. 'labels', 'GT', when, label)
if redis.call('ZSCORE', list(base, label), member) then return 0 end
redis.call('ZADD', list(base, label), when, member)
return 1
"""
)
"""Put an entry into the list of its label where it is not, and the label among the labels: a full server may have let
either go. Base, member. Returns whether the entry was not."""
