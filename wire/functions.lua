#!lua name=fleet
-- Steps that must be one step. Every function names keys of one rail only, so a cluster can run them.
local VERSION = 6

-- The pending record {id, consumer, idle, deliveries} if this consumer still owns the entry, else nil.
local function owned(stream, group, consumer, id)
  local pending = redis.call('XPENDING', stream, group, id, id, 1)
  if pending[1] and pending[1][2] == consumer then return pending[1] end
  return nil
end

-- Without tracing the fifth field is empty: left out, it costs neither the server nor who reads.
local function add(stream, argv, at)
  if argv[at + 4] == '' then
    return redis.call('XADD', stream, '*', 'v', argv[at], 'id', argv[at + 1], 'type', argv[at + 2], 'body', argv[at + 3])
  end
  return redis.call('XADD', stream, '*', 'v', argv[at], 'id', argv[at + 1], 'type', argv[at + 2],
    'body', argv[at + 3], 'traceparent', argv[at + 4])
end

-- keys: stream; argv: (v, id, type, body, traceparent)*. Answers the entry ids.
local function dispatch(keys, argv)
  local ids = {}
  for at = 1, #argv, 5 do ids[#ids + 1] = add(keys[1], argv, at) end
  return ids
end

-- Which of many entries this consumer owns, as a set. What a batch names mostly lies side by side, so one question is
-- asked for all from the first to the last; who is not in its answer is asked about alone.
local function owned_among(stream, group, consumer, ids)
  local mine = {}
  if #ids > 1 then
    for _, each in ipairs(redis.call('XPENDING', stream, group, ids[1], ids[#ids], #ids, consumer)) do
      mine[each[1]] = true
    end
  end
  for _, id in ipairs(ids) do
    if not mine[id] and owned(stream, group, consumer, id) then mine[id] = true end
  end
  return mine
end

-- Hands `act` those of these ids that are in the set `mine`, a thousand at a time: a command costs more than its
-- arguments. Answers 1 for each that is, the first time that it is named, else 0.
local function each_of(mine, ids, act)
  local answers, chosen = {}, {}
  for at, id in ipairs(ids) do
    answers[at] = mine[id] and 1 or 0
    if mine[id] then chosen[#chosen + 1] = id end
    mine[id] = nil
    if #chosen == 1000 or at == #ids and #chosen > 0 then
      act(chosen)
      chosen = {}
    end
  end
  return answers
end

local function every(argv, first, step)
  local found = {}
  for at = first, #argv, step do found[#found + 1] = argv[at] end
  return found
end

-- keys: source, results, dead letters; argv: group, consumer, (entry, target, v, id, type, body, traceparent)*.
-- Facts about money are never fenced: a lost entry's result is published, only not acked. Who owns what is asked first:
-- where the group is missing nothing is published, so that who repeats this until it is there adds everything once.
local function settle(keys, argv)
  local ids, published = every(argv, 3, 7), {}
  local mine = owned_among(keys[1], argv[1], argv[2], ids)
  for at = 3, #argv, 7 do
    published[#published + 1] = add(argv[at + 1] == 'dead' and keys[3] or keys[2], argv, at + 2)
  end
  local answers = each_of(mine, ids, function(owns) redis.call('XACK', keys[1], argv[1], unpack(owns)) end)
  for at, acked in ipairs(answers) do answers[at] = { acked, published[at] } end
  return answers
end

-- keys: stream; argv: group, consumer, id*. Answers 1 for each entry that was ours and is acked.
local function ack(keys, argv)
  local ids = every(argv, 3, 1)
  local mine = owned_among(keys[1], argv[1], argv[2], ids)
  return each_of(mine, ids, function(owns) redis.call('XACK', keys[1], argv[1], unpack(owns)) end)
end

-- keys: stream; argv: group, consumer, idle ms, id*. The delivery that ends here does not count.
local function release(keys, argv)
  local answers = {}
  for at = 4, #argv do
    local mine = owned(keys[1], argv[1], argv[2], argv[at])
    if mine then
      redis.call('XCLAIM', keys[1], argv[1], argv[2], 0, argv[at], 'IDLE', argv[3],
        'RETRYCOUNT', math.max(0, mine[4] - 1), 'JUSTID')
    end
    answers[#answers + 1] = mine and 1 or 0
  end
  return answers
end

-- keys: stream; argv: group, consumer, (id, deliveries)*. What was set aside is counted again, where it is ours still.
local function count(keys, argv)
  local answers = {}
  for at = 3, #argv, 2 do
    local mine = owned(keys[1], argv[1], argv[2], argv[at])
    if mine then
      redis.call('XCLAIM', keys[1], argv[1], argv[2], 0, argv[at], 'RETRYCOUNT', argv[at + 1], 'JUSTID')
    end
    answers[#answers + 1] = mine and 1 or 0
  end
  return answers
end

-- keys: stream; argv: group, consumer, id*. A bare XCLAIM would steal back what another has claimed.
local function heartbeat(keys, argv)
  local ids = every(argv, 3, 1)
  return each_of(owned_among(keys[1], argv[1], argv[2], ids), ids, function(owns)
    owns[#owns + 1] = 'JUSTID'
    redis.call('XCLAIM', keys[1], argv[1], argv[2], 0, unpack(owns))
  end)
end

-- keys: stream; argv: group, id*. Answers how often each was delivered, 0 where it is not pending.
local function deliveries(keys, argv)
  local counts = {}
  for at = 2, #argv do
    local pending = redis.call('XPENDING', keys[1], argv[1], argv[at], argv[at], 1)
    counts[#counts + 1] = pending[1] and pending[1][4] or 0
  end
  return counts
end

-- keys: stream; argv: group, id. Answers the new id, or nothing where the entry is gone.
local function readd(keys, argv)
  local found = redis.call('XRANGE', keys[1], argv[2], argv[2])
  if not found[1] then return false end
  local added = redis.call('XADD', keys[1], '*', unpack(found[1][2]))
  redis.call('XACK', keys[1], argv[1], argv[2])
  redis.call('XDEL', keys[1], argv[2])
  return added
end

-- keys: stream; argv: group, consumer, least idle ms. Deleting a consumer drops what it has pending.
local function drop_consumer(keys, argv)
  for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', keys[1], argv[1])) do
    local info = {}
    for at = 1, #flat, 2 do info[flat[at]] = flat[at + 1] end
    if info.name == argv[2] and info.pending == 0 and info.idle >= tonumber(argv[3]) then
      redis.call('XGROUP', 'DELCONSUMER', keys[1], argv[1], argv[2])
      return 1
    end
  end
  return 0
end

-- keys: bucket; argv: tokens a second, most tokens, tokens to leave, wanted. Answers how many were taken, and in how
-- many ms the next may be. A bucket that is new starts empty, so that a wiped server gives no second burst.
local function take(keys, argv)
  local rate, burst, leave, wanted = tonumber(argv[1]), tonumber(argv[2]), tonumber(argv[3]), tonumber(argv[4])
  local clock, kept = redis.call('TIME'), redis.call('HMGET', keys[1], 'tokens', 'at_ms')
  local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
  local tokens, at = tonumber(kept[1]) or 0, tonumber(kept[2]) or now
  tokens = math.min(burst, tokens + math.max(0, now - at) * rate / 1000)
  local taken = math.max(0, math.min(wanted, math.floor(tokens - leave)))
  tokens = tokens - taken
  redis.call('HSET', keys[1], 'tokens', string.format('%.6f', tokens), 'at_ms', string.format('%d', now))
  return { taken, math.ceil(math.max(0, leave + 1 - tokens) * 1000 / rate) }
end

redis.register_function('fleet_dispatch', dispatch)
redis.register_function('fleet_settle', settle)
redis.register_function('fleet_readd', readd)
redis.register_function('fleet_take', take)

-- These add no entry, and a server that is full gets room again only by what they do: its memory must not refuse them.
local function register(name, callback, flag)
  redis.register_function { function_name = name, callback = callback, flags = { flag } }
end
register('fleet_ack', ack, 'allow-oom')
register('fleet_release', release, 'allow-oom')
register('fleet_heartbeat', heartbeat, 'allow-oom')
register('fleet_count', count, 'allow-oom')
register('fleet_drop_consumer', drop_consumer, 'allow-oom')
register('fleet_deliveries', deliveries, 'no-writes')
register('fleet_version', function() return VERSION end, 'no-writes')
