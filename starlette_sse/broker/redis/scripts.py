"""What runs inside Redis, each script one atomic step.

One log is a hash (its name, epoch, number, floor, the server's run and its ancestors), a sorted set of the channels by
their last number, and a stream for each channel. The keys of a log carry its name, so what an earlier log has left
behind is never read; it goes by its own time to live. The floor is what a channel that is not in the sorted set had
at most: a channel is taken out of it when its stream has expired.

A record is ``<prev> <milliseconds> <start> <size> <length of the key, or -1> LF key body``; ``start`` counts the
bytes of the channel's earlier records. All but :data:`OPEN` are run behind a line that says which ``database`` the log
is in, since what is published is heard in all of them, and behind :data:`MOVED`.
"""

from __future__ import annotations

__all__ = ["APPEND", "MOVED", "OPEN", "READ", "STATE"]

#: Tells whether the server was a replica since :data:`OPEN` was run: it still knows the scripts, but the log may have
#: lost numbers that were used. To the others that is as if there were no log, until :data:`OPEN` has judged it. What is
#: a replica still refuses to write by itself. (Redis remembers it for its ``repl-backlog-ttl``, an hour; each process
#: looks every ten seconds.)
MOVED = """
local function moved(life)
  local replication = redis.call('INFO', 'replication')
  return life and string.find(replication, 'role:master', 1, true)
    and string.match(replication, 'master_replid:(%x+)') ~= life
    and string.find(string.match(replication, 'master_replid2:(%x+)') or '0', '[^0]')
end
"""

#: KEYS: the hash. ARGV: a new epoch, the hash's time to live in ms, what the names of the channels begin with.
#: Returns the epoch, the number, the ancestors; an error if the user has no right to the channels.
OPEN = """
if redis.acl_check_cmd and not redis.acl_check_cmd('PUBLISH', ARGV[3], '') then
  return redis.error_reply('NOPERM this user may not publish to the channels ' .. ARGV[3] .. '*')
end
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local replication = redis.call('INFO', 'replication')
local life = string.match(replication, 'master_replid:(%x+)') or ''
local replaced = string.find(string.match(replication, 'master_replid2:(%x+)') or '0', '[^0]')
local log = redis.call('HMGET', KEYS[1], 'name', 'run', 'epoch', 'seq', 'ancestors', 'life')
if log[1] and log[2] == run and log[6] and log[6] ~= life then
  -- It was a replica meanwhile, and has taken what its master had; or it has got its first replica.
  if replaced then log[1] = false else redis.call('HSET', KEYS[1], 'life', life) end
end
if log[1] and log[2] ~= run then
  -- The server was started again, or another took over. What was appended last may be lost unless every write was in
  -- an append-only file of this very server. Even so the epoch is new, so that no lost number is ever used twice.
  local kept = string.find(redis.call('INFO', 'persistence'), 'aof_enabled:1', 1, true)
  if kept and not replaced then
    local ancestors = log[3] .. '=' .. log[4]
    local older, count = log[5] or '', 1
    for ancestor in string.gmatch(older, '%S+') do
      count = count + 1
      if count <= 8 then ancestors = ancestors .. ' ' .. ancestor end
    end
    redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'run', run, 'life', life, 'ancestors', ancestors)
  else
    log[1] = false
  end
end
if not log[1] then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'name', ARGV[1], 'epoch', ARGV[1], 'run', run, 'life', life, 'seq', 0, 'floor', 0,
    'ancestors', '')
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'ancestors')
"""

#: KEYS: the hash. ARGV: the keys' prefix, the hash's time to live in ms, the streams' time to live in ms, the history,
#: the greatest age in ms, the greatest number of bytes, the channel, the body, and the key if there is one.
#: Returns the epoch and the number; nil if there is no log, and an error if it may not write. What is raised is raised
#: behind a write, which Redis does not undo.
APPEND = """
local log = redis.call('HMGET', KEYS[1], 'name', 'epoch', 'floor', 'life')
if not log[1] or moved(log[4]) then return nil end
local prefix = ARGV[1] .. log[1] .. ':'
local tops, stream = prefix .. 'tops', prefix .. 'channel:' .. ARGV[7]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local seq = redis.pcall('HINCRBY', KEYS[1], 'seq', 1)
if type(seq) == 'table' then return seq end
local floor = tonumber(log[3])
if seq > 1 and redis.call('EXISTS', tops) == 0 then
  -- The channels' numbers were evicted: nothing older can be proven.
  floor = seq - 1
  redis.call('HSET', KEYS[1], 'floor', floor)
end
local prev = redis.call('ZSCORE', tops, ARGV[7]) or floor

local function facts(entry)
  local ms, start, size = string.match(entry[2][2], '^%d+ (%d+) (%d+) (%d+)')
  return tonumber(ms), tonumber(start), tonumber(size)
end
local start = 0
local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
if last then
  local _, before, size = facts(last)
  start = before + size
end
local key = ARGV[9]
local size = #ARGV[8] + (key and #key or 0)
local head = string.format('%s %.0f %.0f %d %d\\n', prev, now, start, size, key and #key or -1)
local record = head .. (key or '') .. ARGV[8]
local id = string.format('%.0f-0', seq)
redis.call('XADD', stream, 'MAXLEN', ARGV[4], id, 'r', record)
while true do
  local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  local ms, before = facts(oldest)
  if oldest[1] == id or (now - ms <= tonumber(ARGV[5]) and start + size - before <= tonumber(ARGV[6])) then break end
  redis.call('XDEL', stream, oldest[1])
end
redis.call('PEXPIRE', stream, ARGV[3])

redis.call('ZADD', tops, seq, ARGV[7])
for _ = 1, 2 do
  local oldest = redis.call('ZRANGE', tops, 0, 0, 'WITHSCORES')
  if redis.call('EXISTS', prefix .. 'channel:' .. oldest[1]) == 1 then break end
  redis.call('ZREM', tops, oldest[1])
  redis.call('HSET', KEYS[1], 'floor', math.max(floor, oldest[2]))
end
redis.call('PEXPIRE', tops, ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local news = ARGV[1] .. 'news:' .. database .. ':'
redis.call('PUBLISH', news .. ARGV[7], string.format('%s %.0f ', log[2], seq) .. record)
return {log[2], seq}
"""

#: KEYS: the hash. ARGV: the keys' prefix, the hash's time to live in ms, and channels.
#: Returns the epoch, the number, and for each channel what its last number is at most; nil if there is no log.
STATE = """
local log = redis.call('HMGET', KEYS[1], 'name', 'epoch', 'seq', 'floor', 'life')
if not log[1] or moved(log[5]) then return nil end
local tops = ARGV[1] .. log[1] .. ':tops'
local floor = redis.call('PEXPIRE', tops, ARGV[2]) == 1 and log[4] or log[3]
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local reply = {log[2], log[3]}
for channel = 3, #ARGV do
  reply[channel] = redis.call('ZSCORE', tops, ARGV[channel]) or floor
end
return reply
"""

#: KEYS: the hash. ARGV: the keys' prefix, the greatest age in ms, the epoch and number to read after, the bytes to
#: return of each channel, and channels.
#: Returns 'page', the epoch, the number up to which that is all, the time in ms, and for each entry the place of its
#: channel, its number and its record; or 'gap', the epoch, the log's end, the oldest number to read after and the
#: reason; nil if there is no log.
READ = """
local log = redis.call('HMGET', KEYS[1], 'name', 'epoch', 'seq', 'floor', 'ancestors', 'life')
if not log[1] or moved(log[6]) then return nil end
local prefix = ARGV[1] .. log[1] .. ':'
local tops = prefix .. 'tops'
local floor = redis.call('EXISTS', tops) == 1 and log[4] or log[3]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local since = now - ARGV[2]
local after, limit = tonumber(ARGV[4]), tonumber(ARGV[5])

local function facts(entry)
  local prev, ms = string.match(entry[2][2], '^(%d+) (%d+)')
  return tonumber(string.match(entry[1], '^%d+')), tonumber(prev), tonumber(ms)
end
local function top(channel)
  return tonumber(redis.call('ZSCORE', tops, channel) or floor)
end
local function gap(reason)
  local oldest = 0
  for place = 6, #ARGV do
    local reach = top(ARGV[place])
    for _, entry in ipairs(redis.call('XRANGE', prefix .. 'channel:' .. ARGV[place], '-', '+', 'COUNT', 64)) do
      local _, prev, ms = facts(entry)
      if ms >= since then
        reach = prev
        break
      end
    end
    oldest = math.max(oldest, reach)
  end
  return {'gap', log[2], log[3], oldest, reason}
end

if ARGV[3] ~= log[2] then
  local valid = string.match(' ' .. log[5], ' ' .. ARGV[3] .. '=(%d+)')
  if not valid then return gap('epoch') end
  if after > tonumber(valid) then return gap('lost') end
elseif after > tonumber(log[3]) then
  return gap('future')
end

local upto, parts = tonumber(log[3]), {}
for place = 6, #ARGV do
  local stream, part = prefix .. 'channel:' .. ARGV[place], {}
  local seq, size, more = after, 0, true
  while more and size < limit do
    local entries = redis.call('XRANGE', stream, string.format('(%.0f-0', seq), '+', 'COUNT', 32)
    more = #entries == 32
    for _, entry in ipairs(entries) do
      local number, prev, ms = facts(entry)
      if prev > seq or ms < since then return gap('evicted') end
      seq, size = number, size + #entry[2][2]
      part[#part + 1] = {place - 6, number, entry[2][2]}
      if size >= limit then
        more = true
        break
      end
    end
  end
  if more then
    upto = math.min(upto, seq)
  elseif top(ARGV[place]) > seq then
    return gap('evicted')
  end
  parts[#parts + 1] = part
end
local reply = {'page', log[2], upto, string.format('%.0f', now)}
for _, part in ipairs(parts) do
  for _, entry in ipairs(part) do
    if entry[2] <= upto then
      reply[#reply + 1] = entry[1]
      reply[#reply + 1] = entry[2]
      reply[#reply + 1] = entry[3]
    end
  end
end
return reply
"""
