-- Every write that must happen whole or not at all. One call touches one partition (one slot).
-- Order in each function: fence, parse, write. Redis 7.0 commands only; times are Redis's own.
-- __LIB__ is replaced by a name that holds a digest of this text, so that two versions of the
-- workers can run side by side while they are replaced.

local INPUT_GROUP = 'detect'
local SCORE_GROUP = 'score'
local WINDOW = 4096          -- numbers remembered of one producer (CONTRACT 3)
local SEEN_MS = 3600000      -- for an hour after the last one

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function whole(n) return string.format('%.0f', n) end

local function pairs_of(flat)
  local map = {}
  for i = 1, #flat, 2 do map[flat[i]] = flat[i + 1] end
  return map
end

-- Nil where the stream or the group is gone.
local function group_of(stream, name)
  if redis.call('TYPE', stream)['ok'] ~= 'stream' then return nil end
  for _, flat in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local group = pairs_of(flat)
    if group['name'] == name then return group end
  end
end

local function kind_is(key, wanted)
  local kind = redis.call('TYPE', key)['ok']
  return kind == 'none' or kind == wanted
end

-- Ids as text: longer is larger, so compare by length first.
local function split(id)
  local ms, seq = string.match(id, '^(%d+)%-(%d+)$')
  return ms, seq
end
local function text_less(a, b)
  if #a ~= #b then return #a < #b end
  return a < b
end
local function id_less(a, b)
  local am, as = split(a)
  local bm, bs = split(b)
  if am ~= bm then return text_less(am, bm) end
  return text_less(as, bs)
end
local function after(id)
  local ms, seq = split(id)
  return ms .. '-' .. whole(tonumber(seq) + 1)
end

-- A cached hash that a stranger overwrote with another type is made anew, never a half commit.
local function own_hash(key)
  if not kind_is(key, 'hash') then redis.call('DEL', key) end
end

-- Has this number of a producer been seen? Remembers it. `key`: 512 bytes of bits, then the
-- highest number as text.
local function is_repeated(key, seq)
  if not kind_is(key, 'string') then redis.call('DEL', key) end
  local highest = tonumber(redis.call('GETRANGE', key, WINDOW / 8, -1))
  if highest and seq <= highest then
    if seq <= highest - WINDOW then return true end
    if redis.call('SETBIT', key, seq % WINDOW, 1) == 1 then return true end
  else
    if highest and seq - highest >= WINDOW then redis.call('DEL', key) end
    if highest and seq - highest < WINDOW then
      for gap = highest + 1, seq - 1 do redis.call('SETBIT', key, gap % WINDOW, 0) end
    end
    redis.call('SETBIT', key, seq % WINDOW, 1)
    redis.call('SETRANGE', key, WINDOW / 8, string.format('%016.0f', seq))
  end
  redis.call('PEXPIRE', key, SEEN_MS)
  return false
end

local function size_of(fields)
  local bytes = 0
  for i = 1, #fields do bytes = bytes + #tostring(fields[i]) end
  return bytes
end

local function drop_dead(keys, id, fields)
  if redis.call('XDEL', keys.dead, id) == 1 then
    redis.call('HINCRBY', keys.ledger, 'dead_bytes', -size_of(fields))
  end
end

local function add_dead(keys, fields, limits)
  redis.call('XADD', keys.dead, '*', unpack(fields))
  local bytes = redis.call('HINCRBY', keys.ledger, 'dead_bytes', size_of(fields))
  if redis.call('XLEN', keys.dead) == 1 then  -- others may have emptied it
    bytes = size_of(fields)
    redis.call('HSET', keys.ledger, 'dead_bytes', bytes)
  end
  while redis.call('XLEN', keys.dead) > limits.dead_entries or bytes > limits.dead_bytes do
    local oldest = redis.call('XRANGE', keys.dead, '-', '+', 'COUNT', 1)[1]
    if not oldest then break end
    drop_dead(keys, oldest[1], oldest[2])
    bytes = tonumber(redis.call('HGET', keys.ledger, 'dead_bytes'))
  end
end

-- An input of a source arrived: everything remembered of it lives on, and what went wrong shows.
local function touch(keys, k, source, at_ms, ttl_s, counter, problem)
  local state = keys[k]
  own_hash(state)
  if counter then redis.call('HINCRBY', state, counter, 1) end
  if problem then redis.call('HSET', state, 'last_problem', problem) end
  redis.call('EXPIRE', state, ttl_s)
  redis.call('EXPIRE', keys[k + 1], ttl_s)
  redis.call('ZADD', keys.sources, 'GT', at_ms, source)
end

local function groups_of(stream)
  local rows = {}
  for i, flat in ipairs(redis.call('XINFO', 'GROUPS', stream)) do rows[i] = pairs_of(flat) end
  return rows
end

-- Entries not delivered to the detect group. Redis's own lag is wrong after a restart from AOF and
-- after a failover: of XREADGROUP it propagates the claims and the last id, not `entries-read`.
-- Where it is the only group, what is in the stream and not pending has not been delivered; `done`
-- entries are acked and still there.
local function true_lag(stream, groups, group, done)
  if #groups > 1 then return group['lag'] end
  return math.max(0, redis.call('XLEN', stream) - done - group['pending'])
end

-- Gives the row of the detect group with the right lag, and puts Redis right where it was wrong.
local function mended(stream, done)
  local groups = redis.call('EXISTS', stream) == 1 and groups_of(stream) or {}
  for _, group in ipairs(groups) do
    if group['name'] == INPUT_GROUP then
      local lag = true_lag(stream, groups, group, done)
      if lag and lag ~= group['lag'] then
        local added = group['lag'] and group['entries-read'] and group['entries-read'] + group['lag']
          or pairs_of(redis.call('XINFO', 'STREAM', stream))['entries-added']
        group['entries-read'], group['lag'] = added - lag, lag
        redis.call('XGROUP', 'SETID', stream, INPUT_GROUP, group['last-delivered-id'],
          'ENTRIESREAD', whole(group['entries-read']))
      end
      return group, groups
    end
  end
  return nil, groups
end

-- Note how far a stream has come, so that what is gone with it can be counted when it is deleted.
-- `group` is a row of XINFO GROUPS; without a lag Redis does not know how many were added.
local function note_stream(ledger, name, group, acked)
  if group['lag'] and group['entries-read'] then
    redis.call('HSET', ledger, 'seen:' .. name, whole(group['entries-read'] + group['lag']))
  end
  redis.call('HSET', ledger, 'last:' .. name, group['last-delivered-id'])
  if acked then redis.call('HSET', ledger, 'acked:' .. name, whole(acked)) end
end

-- Remove inputs that every group on the stream is done with. With one group the acked entries go
-- at once, else everything below the first entry that some group still needs.
local function release_inputs(stream, ids, groups)
  if #groups <= 1 then
    if #ids > 0 then redis.call('XDEL', stream, unpack(ids)) end
    return
  end
  local keep
  for _, group in ipairs(groups) do
    local first = after(group['last-delivered-id'])
    if group['pending'] > 0 then first = redis.call('XPENDING', stream, group['name'])[2] end
    if not keep or id_less(first, keep) then keep = first end
  end
  redis.call('XTRIM', stream, 'MINID', keep)
end

---------------------------------------------------------------------------------------- detect
-- keys: stream, detections, dead, ledger, sources, then per source: state, memory, last, seen
-- args: msgpack {limits, items}; item = {id, outcome, source|nil, k, seq|nil, fields, problem|nil,
-- jpeg|nil}. outcome: detected | cached | age | overflow | dead.
-- Returns {'OK', flags} with one letter an item: '1' written, '0' not pending any more (nothing
-- written), 'D' a duplicate, dropped and counted; or {'PAUSED'} while scoring is too far behind.
local COUNTER = {
  detected = 'frames_detected', cached = 'frames_cached', age = 'frames_dropped_age',
  overflow = 'frames_dropped_overflow', dead = 'frames_dead', duplicate = 'frames_dropped_duplicate',
}
local STATE_COUNTER = {
  age = 'frames_dropped', overflow = 'frames_dropped', duplicate = 'frames_dropped', dead = 'dead',
}

local function name_keys(keys, names)
  for i, name in ipairs(names) do keys[name] = keys[i] end
end

local function settle(keys, item, limits, at_ms)
  local outcome = item.outcome
  if item.seq and (outcome == 'detected' or outcome == 'cached')
      and is_repeated(keys[item.k + 3], item.seq) then
    outcome, item.problem = 'duplicate', 'duplicate of producer number ' .. whole(item.seq)
  end
  if outcome == 'detected' or outcome == 'cached' then
    redis.call('XADD', keys.detections, '*', unpack(item.fields))
    if item.jpeg then
      redis.call('SET', keys[item.k + 2], item.jpeg, 'EX', limits.last_ttl_s)
    end
  elseif outcome == 'dead' then
    add_dead(keys, item.fields, limits)
  end
  redis.call('HINCRBY', keys.ledger, COUNTER[outcome], 1)
  if item.source then
    touch(keys, item.k, item.source, at_ms, limits.ttl_s, STATE_COUNTER[outcome], item.problem)
  end
  return outcome == 'duplicate' and 'D' or '1'
end

-- Count acked inputs and remove them.
local function finish_inputs(stream, ledger, name, ids)
  if #ids == 0 then return end
  redis.call('HINCRBY', ledger, 'acked:' .. name, #ids)
  local group, groups = mended(stream, #ids)
  note_stream(ledger, name, group)
  release_inputs(stream, ids, groups)
end

local function detect_commit(keys, args)
  name_keys(keys, {'stream', 'detections', 'dead', 'ledger', 'sources'})
  local batch = cmsgpack.unpack(args[1])
  for i, wanted in ipairs({'stream', 'stream', 'stream', 'hash', 'zset'}) do
    if not kind_is(keys[i], wanted) then return {'BADTYPE', keys[i]} end
  end
  for _, item in ipairs(batch.items) do
    if not COUNTER[item.outcome] or (item.source and not keys[item.k + 3]) then
      return {'BADARGS', tostring(item.id)}
    end
  end
  local score = group_of(keys.detections, SCORE_GROUP)
  if score and tonumber(score['lag'] or 0) >= batch.limits.results_keep then return {'PAUSED'} end
  local at_ms, flags, done = now_ms(), {}, {}
  for i, item in ipairs(batch.items) do
    if redis.call('XACK', keys.stream, INPUT_GROUP, item.id) == 1 then
      done[#done + 1] = item.id
      flags[i] = settle(keys, item, batch.limits, at_ms)
    else
      flags[i] = '0'
    end
  end
  finish_inputs(keys.stream, keys.ledger, batch.stream, done)
  return {'OK', table.concat(flags)}
end

-- keys: frames | recordings, ledger. Counts entries that others removed: pending ones whose body
-- is gone, and those never delivered (what the group has read is neither acked nor pending).
-- Runs only when nothing waits, so that the group has read up to the stream's end.
-- args: stream name. Returns the number counted.
local function detect_audit(keys, args)
  local stream, ledger = keys[1], keys[2]
  local group = mended(stream, 0)
  if not group then return 0 end
  local gone = {}
  for _, row in ipairs(redis.call('XPENDING', stream, INPUT_GROUP, '-', '+', 100)) do
    if #redis.call('XRANGE', stream, row[1], row[1]) == 0 then gone[#gone + 1] = row[1] end
  end
  local lost = 0
  if #gone > 0 then lost = redis.call('XACK', stream, INPUT_GROUP, unpack(gone)) end
  local info = pairs_of(redis.call('XINFO', 'STREAM', stream))
  group = group_of(stream, INPUT_GROUP)
  if not id_less(group['last-delivered-id'], info['last-generated-id'])
      or #redis.call('XRANGE', stream, '(' .. group['last-delivered-id'], '+', 'COUNT', 1) == 0 then
    local acked = tonumber(redis.call('HGET', ledger, 'acked:' .. args[1]) or 0)
    lost = info['entries-added'] - acked - group['pending']
    if lost > 0 and id_less(group['last-delivered-id'], info['last-generated-id']) then
      redis.call('XGROUP', 'SETID', stream, INPUT_GROUP, info['last-generated-id'],
        'ENTRIESREAD', info['entries-added'])
    end
  end
  if lost > 0 then
    redis.call('HINCRBY', ledger, 'acked:' .. args[1], lost)
    redis.call('HINCRBY', ledger, 'frames_lost_trimmed', lost)
  end
  return lost
end

-- Overload of live frames: delivers, drops, counts and trims in one step, so that lag stays exact.
-- keys: frames, ledger, sources. args: consumer, count, backlog, key base, ttl_s, max_age_ms.
-- Beyond `backlog` undelivered entries the oldest are read together with the next `count`, and so
-- are those that are too old: these are dropped. Of the others the newest of each source are kept,
-- sources in turn, and the rest is dropped.
-- Returns the kept ones shaped like a reply of XREADGROUP, how many were dropped because there were
-- too many and because they were too old, and the oldest id of all.
local SHED_AT_ONCE = 64

local function source_in(flat)
  for i = 1, #flat, 2 do
    if flat[i] == 'source' and #flat[i + 1] <= 128 and string.match(flat[i + 1], '^[%w._:-]+$') then
      return flat[i + 1]
    end
  end
end

-- Marks the entries to keep; `first` is the first one that is not too old. Who comes first among
-- the sources is drawn by lot: the newest would nearly always be of the one that sends most.
local function newest_in_turn(entries, first, count, lot)
  local age, order, lots = {}, {}, {}
  for i = #entries, first, -1 do
    local source = source_in(entries[i][2]) or ''
    age[source] = (age[source] or 0) + 1
    lots[source] = lots[source] or redis.sha1hex(source .. lot)
    order[#order + 1] = {rank = age[source], lot = lots[source], i = i}
  end
  table.sort(order, function(a, b)
    if a.rank ~= b.rank then return a.rank < b.rank end
    return a.lot < b.lot
  end)
  local keep = {}
  for n = 1, math.min(count, #order) do keep[order[n].i] = true end
  return keep
end

local function forget_frame(keys, args, fields, at_ms, problem)
  local source = source_in(fields)
  if not source then return end
  local named = {args[4] .. ':state:' .. source, args[4] .. ':memory:' .. source}
  named.sources = keys[3]
  touch(named, 1, source, at_ms, tonumber(args[5]), 'frames_dropped', problem)
end

local function shed(keys, args)
  local group = mended(keys[1], 0)
  if not group then return redis.error_reply('NOGROUP of ' .. keys[1]) end
  local count, at_ms = tonumber(args[2]), now_ms()
  local stale_id = whole(at_ms - tonumber(args[6]))
  local stale = redis.call('XRANGE', keys[1], '(' .. group['last-delivered-id'], '(' .. stale_id .. '-0',
    'COUNT', SHED_AT_ONCE)
  local excess = tonumber(group['lag'] or 0) - tonumber(args[3])
  local scan = count + math.min(math.max(excess, #stale, 0), SHED_AT_ONCE)
  local found = redis.call('XREADGROUP', 'GROUP', INPUT_GROUP, args[1], 'COUNT', scan,
    'STREAMS', keys[1], '>')
  if not found then return {} end
  local entries, kept, dropped, first = found[1][2], {}, {}, 1
  while entries[first] and text_less(split(entries[first][1]), stale_id) do first = first + 1 end
  local keep = newest_in_turn(entries, first, count, entries[#entries][1])
  for i, entry in ipairs(entries) do
    if keep[i] then
      kept[#kept + 1] = entry
    else
      dropped[#dropped + 1] = entry[1]
      forget_frame(keys, args, entry[2], at_ms,
        i < first and 'frame dropped: too old' or 'overload: frame dropped')
    end
  end
  if #dropped > 0 then
    redis.call('XACK', keys[1], INPUT_GROUP, unpack(dropped))
    redis.call('HINCRBY', keys[2], 'frames_dropped_age', first - 1)
    redis.call('HINCRBY', keys[2], 'frames_dropped_overflow', #dropped - first + 1)
    finish_inputs(keys[1], keys[2], 'frames', dropped)
  end
  return {{keys[1], kept, #dropped - first + 1, first - 1, entries[1][1]}}
end

-- keys: stream. args: consumer, idle_ms. Removes consumers that are long idle and own nothing.
local function prune(keys, args)
  local removed = 0
  if not group_of(keys[1], INPUT_GROUP) then return 0 end
  for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', keys[1], INPUT_GROUP)) do
    local consumer = pairs_of(flat)
    if consumer['name'] ~= args[1] and consumer['pending'] == 0
        and consumer['idle'] > tonumber(args[2]) then
      redis.call('XGROUP', 'DELCONSUMER', keys[1], INPUT_GROUP, consumer['name'])
      removed = removed + 1
    end
  end
  return removed
end

-- keys: stream. args: consumer, idle_ms, id... Sets the idle time of entries that are still ours,
-- without counting a delivery: 0 keeps them, a large one hands them back. Returns how many are.
local function renew_entries(keys, args)
  local mine = {}
  if not group_of(keys[1], INPUT_GROUP) then return 0 end
  for i = 3, #args do
    local row = redis.call('XPENDING', keys[1], INPUT_GROUP, args[i], args[i], 1)[1]
    if row and row[2] == args[1] then mine[#mine + 1] = args[i] end
  end
  if #mine == 0 then return 0 end
  local tail = {'IDLE', args[2], 'JUSTID'}
  for _, word in ipairs(tail) do mine[#mine + 1] = word end
  return #redis.call('XCLAIM', keys[1], INPUT_GROUP, args[1], 0, unpack(mine))
end

-- keys: stream. args: as of claim. Returns whether `claim` would find something.
local function idle_rows(keys, args)
  if not group_of(keys[1], INPUT_GROUP) then return {} end
  local filter = {keys[1], INPUT_GROUP, 'IDLE', args[2], '-', '+', 32}
  if args[4] == '1' then filter[#filter + 1] = args[1] end
  return redis.call('XPENDING', unpack(filter))
end
local function claimable(keys, args) return #idle_rows(keys, args) > 0 and 1 or 0 end

-- keys: stream. args: consumer, idle_ms, size of a full batch, '1' for own entries only.
-- Takes over entries whose owner gave no sign of life for so long: the oldest, and with it as many
-- as its number of deliveries dares; an eighth of a batch each time, so that an entry that kills
-- its worker is soon alone, and no neighbour's deliveries are used up beside it.
-- Returns {time in ms, {id, deliveries, fields}...}.
local function claim(keys, args)
  local size, ids, deliveries = tonumber(args[3]), {}, {}
  for _, row in ipairs(idle_rows(keys, args)) do
    size = math.min(size, math.max(1, math.floor(tonumber(args[3]) / 8 ^ row[4])))
    if #ids >= size then break end
    ids[#ids + 1] = row[1]
    deliveries[row[1]] = row[4] + 1
  end
  local answer = {whole(now_ms())}
  if #ids == 0 then return answer end
  for _, entry in ipairs(redis.call('XCLAIM', keys[1], INPUT_GROUP, args[1], args[2], unpack(ids))) do
    if entry and entry[2] then
      answer[#answer + 1] = {entry[1], deliveries[entry[1]], entry[2]}
    end
  end
  return answer
end

-- keys: young, old. args: bytes that the young one may hold, ttl_s, then digest, answer... Keeps
-- what the network found, by picture; the field with the empty name counts bytes. Returns the bytes.
local function keep_answers(keys, args)
  for i = 1, 2 do own_hash(keys[i]) end
  local bytes = tonumber(redis.call('HGET', keys[1], '') or 0) or 0
  if bytes >= tonumber(args[1]) then
    redis.call('RENAME', keys[1], keys[2])
    bytes = 0
  end
  redis.call('HSET', keys[1], unpack(args, 3))
  if bytes == 0 then redis.call('EXPIRE', keys[1], args[2]) end
  for i = 3, #args do bytes = bytes + #args[i] end
  redis.call('HSET', keys[1], '', bytes)
  return bytes + (tonumber(redis.call('HGET', keys[2], '') or 0) or 0)
end

local function clock() return whole(now_ms()) end

----------------------------------------------------------------------------------------- score
-- keys: workers. args: me, lease_ms. Says that a score worker lives; returns all who do.
local function beat(keys, args)
  local at_ms = now_ms()
  redis.call('ZADD', keys[1], at_ms, args[1])
  redis.call('ZREMRANGEBYSCORE', keys[1], '-inf', '(' .. whole(at_ms - tonumber(args[2])))
  redis.call('ZREMRANGEBYSCORE', keys[1], '(' .. whole(at_ms + tonumber(args[2])), '+inf')
  return redis.call('ZRANGE', keys[1], 0, -1)
end

-- What the next owner would begin with, as a digest; false when nothing waits.
local function work_at(keys, events, detections, held)
  local at = {events['last-delivered-id'], detections['last-delivered-id'], held}
  for i = 1, 2 do
    local found = redis.call('XRANGE', keys[i + 1], '(' .. at[i], '+', 'COUNT', 1)
    if #found > 0 then return redis.sha1hex(table.concat(at, ' ')) end
  end
  return held ~= '' and redis.sha1hex(table.concat(at, ' '))
end

-- An owner that died with work in hand may have died of it. `caution` is the size of batch that the
-- next one dares; `stall` counts the deaths at one place of those who had said that they try it.
local function note_takeover(owner, row, me, work, full)
  local stall, caution = tonumber(row.stall) or 0, tonumber(row.caution) or 0
  if row.clean == '0' and row.owner ~= me and work then
    if caution == 0 then
      caution = math.max(1, math.floor(full / 8))
    elseif row.trying == work then
      stall, caution = stall + 1, math.max(1, math.floor(caution / 8))
    end
  end
  redis.call('HSET', owner, 'trying', '', 'stall', stall, 'caution', caution)
  return stall, caution
end

-- A lease that ends later than any could, now, is of before the clock was put back.
local function is_held(row, me, at_ms, lease_ms)
  local left_ms = tonumber(row.expires_ms or 0) - at_ms
  if not row.owner or row.owner == '' or row.owner == me then return false end
  return left_ms > 0 and left_ms <= math.max(lease_ms, tonumber(row.lease_ms or 0))
end

-- keys: owner, events, detections, held. args: me, lease_ms, inputs of a full batch.
-- Returns {'NOGROUP'}, {'HELD', owner, ms left} or {'OK', epoch, commit, events id, events read,
-- detections id, detections read, held ids, stall, caution}.
local function acquire(keys, args)
  local at_ms, row = now_ms(), pairs_of(redis.call('HGETALL', keys[1]))
  if is_held(row, args[1], at_ms, tonumber(args[2])) then
    return {'HELD', row.owner, whole(tonumber(row.expires_ms) - at_ms)}
  end
  local events, detections = group_of(keys[2], SCORE_GROUP), group_of(keys[3], SCORE_GROUP)
  if not events or not detections then return {'NOGROUP'} end
  local held = redis.call('GET', keys[4]) or ''
  local work = work_at(keys, events, detections, held)
  local stall, caution = note_takeover(keys[1], row, args[1], work, tonumber(args[3]))
  local epoch = redis.call('HINCRBY', keys[1], 'epoch', 1)
  redis.call('HSET', keys[1], 'owner', args[1], 'clean', '0', 'since_ms', whole(at_ms),
    'lease_ms', args[2], 'expires_ms', whole(at_ms + tonumber(args[2])))
  local commit = redis.call('HINCRBY', keys[1], 'commit', 0)
  return {'OK', whole(epoch), whole(commit),
    events['last-delivered-id'], whole(events['entries-read'] or 0),
    detections['last-delivered-id'], whole(detections['entries-read'] or 0),
    held, whole(stall), whole(caution)}
end

local function is_fenced(owner, me, epoch)
  local row = redis.call('HMGET', owner, 'owner', 'epoch')
  return row[1] ~= me or row[2] ~= epoch
end

-- keys: owner, events, detections, held. args: me, epoch. Says that a small batch is tried now.
local function attempt(keys, args)
  if is_fenced(keys[1], args[1], args[2]) then return {'FENCED'} end
  local events, detections = group_of(keys[2], SCORE_GROUP), group_of(keys[3], SCORE_GROUP)
  if not events or not detections then return {'NOGROUP'} end
  local work = work_at(keys, events, detections, redis.call('GET', keys[4]) or '')
  redis.call('HSET', keys[1], 'trying', work or '')
  return {'OK'}
end

-- keys: owner. args: me, epoch, lease_ms.
local function renew(keys, args)
  if is_fenced(keys[1], args[1], args[2]) then return {'FENCED'} end
  redis.call('HSET', keys[1], 'expires_ms', whole(now_ms() + tonumber(args[3])))
  return {'OK'}
end

-- keys: owner. args: me, epoch, '1' for a clean hand-over, '0' when serving failed.
local function release(keys, args)
  if is_fenced(keys[1], args[1], args[2]) then return {'FENCED'} end
  redis.call('HSET', keys[1], 'owner', '', 'expires_ms', '0', 'clean', args[3])
  return {'OK'}
end

-- The id after the last one that was delivered, '' where nothing is to be read from there on. Where
-- others deleted entries the lag may not be known, and an entry is looked for.
local function first_unread(stream)
  if redis.call('XLEN', stream) == 0 then return '' end
  local group = group_of(stream, INPUT_GROUP)
  local first = after(group['last-delivered-id'])
  local lag = group['lag'] or #redis.call('XRANGE', stream, first, '+', 'COUNT', 1)
  return lag == 0 and '' or first
end

-- keys: frames, recordings. Returns the time in ms and of each an id that no frame is before that
-- detection has still to finish, '' when there is none.
local function watermark(keys)
  local marks = {whole(now_ms())}
  for i, stream in ipairs(keys) do
    local summary = redis.call('XPENDING', stream, INPUT_GROUP)
    marks[i + 1] = summary[1] > 0 and summary[2] or first_unread(stream)
  end
  return marks
end

-- The same for a commit, which must not fail for want of a group that it does not need.
local function marks_of(keys)
  local is_told, marks = pcall(watermark, {keys.frames, keys.recordings})
  return is_told and marks or {}
end

local function move_cursor(stream, cursor)
  redis.call('XGROUP', 'SETID', stream, SCORE_GROUP, cursor.next, 'ENTRIESREAD', whole(cursor.read))
end

-- Newest `keep` results stay, and whatever scoring has not committed or still holds back.
local function trim_detections(stream, cursor, keep)
  local lag = pairs_of(redis.call('XINFO', 'STREAM', stream))['entries-added'] - cursor.read
  if lag + cursor.held < keep then
    redis.call('XTRIM', stream, 'MAXLEN', '~', keep)
  else
    redis.call('XTRIM', stream, 'MINID', cursor.safe)
  end
end

-- Sets fields of a hash; gives how many are new. One that a stranger overwrote is made anew.
local function put(key, fields)
  local added = redis.pcall('HSET', key, unpack(fields))
  if type(added) == 'number' then return added end
  if not string.find(added.err, 'WRONGTYPE', 1, true) then error(added) end
  redis.call('DEL', key)
  return redis.call('HSET', key, unpack(fields))
end

local function raise(key, counters)
  for counter, by in pairs(counters) do redis.call('HINCRBY', key, counter, by) end
end

-- Places in the row of a source; what is not there is false.
local NAME, KEY, SEEN, FRESH, JOURNAL, STATE, MEMORY, ABSENT, ADD, TROUBLE = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10

-- Most writes of a source are a few fields and what is added to its journal. Gives whether its memory
-- had gone and is not whole.
local function write_source(keys, source, at_ms, ttl_s)
  local state, memory, fields = keys[source[KEY]], keys[source[KEY] + 1], source[STATE]
  fields[#fields + 1], fields[#fields + 2] = 'updated_ms', at_ms
  local kept = source[MEMORY]
  if source[JOURNAL] then
    local journal = redis.pcall('HGET', memory, 'journal')
    if type(journal) ~= 'string' then journal = '' end
    kept[#kept + 1], kept[#kept + 2] = 'journal', journal .. source[JOURNAL]
  end
  local added, anew = put(state, fields), put(memory, kept)
  if source[ABSENT] then redis.call('HDEL', state, unpack(source[ABSENT])) end
  if source[ADD] then raise(state, source[ADD]) end
  if source[FRESH] or added > 0 or anew > 0 then
    redis.call('EXPIRE', state, ttl_s)
    redis.call('EXPIRE', memory, ttl_s)
  end
  return anew > 0 and source[JOURNAL]
end

local SEEN_AT_ONCE = 500
local function note_seen(zset, sources)
  local members = {}
  for i, source in ipairs(sources) do
    if source[MEMORY] then
      members[#members + 1], members[#members + 2] = source[SEEN], source[NAME]
    end
    if #members >= 2 * SEEN_AT_ONCE or (i == #sources and #members > 0) then
      redis.call('ZADD', zset, 'GT', unpack(members))
      members = {}
    end
  end
end

-- keys: COMMIT_KEYS, then per source: state, memory. args: me, epoch, commit number, msgpack
-- {lease_ms, limits, events, detections, held, caution, scores, sources, dead, ledger}. A cursor is
-- {prev, next, read}; detections' has `safe` (first id still needed) and `held` (entries from there
-- to the cursor) too. Returns {'OK', marks, source...}: marks as `watermark` gives them, empty where
-- a group is gone, and the sources whose memory had gone; or {'DUP'}.
local COMMIT_KEYS = {
  'owner', 'events', 'detections', 'scores', 'dead', 'ledger', 'sources', 'held', 'frames', 'recordings',
}
local function score_commit(keys, args)
  if is_fenced(keys[1], args[1], args[2]) then return {'FENCED'} end
  name_keys(keys, COMMIT_KEYS)
  local number = redis.call('HGET', keys.owner, 'commit')
  if tonumber(number) == tonumber(args[3]) + 1 then return {'DUP'} end
  if number ~= args[3] then return {'CONFLICT', 'commit ' .. number} end
  local batch = cmsgpack.unpack(args[4])
  local wanted = {'hash', 'stream', 'stream', 'stream', 'stream', 'hash', 'zset', 'string'}
  for i, kind in ipairs(wanted) do
    if not kind_is(keys[i], kind) then return {'BADTYPE', keys[i]} end
  end
  if #COMMIT_KEYS + 2 * #batch.sources ~= #keys then return {'BADARGS', 'keys'} end
  for _, name in ipairs({'events', 'detections'}) do
    local group = group_of(keys[name], SCORE_GROUP)
    if not group then return {'NOGROUP'} end
    if group['last-delivered-id'] ~= batch[name].prev then
      return {'CONFLICT', name .. ' ' .. group['last-delivered-id']}
    end
  end
  local at_ms, limits, answer = now_ms(), batch.limits, {'OK', marks_of(keys)}
  local at_text = whole(at_ms)
  for _, fields in ipairs(batch.scores) do
    redis.call('XADD', keys.scores, 'MAXLEN', '~', limits.results_keep, '*', unpack(fields))
  end
  for _, fields in ipairs(batch.dead) do add_dead(keys, fields, limits) end
  for _, source in ipairs(batch.sources) do
    if source[MEMORY] then
      if write_source(keys, source, at_text, limits.ttl_s) then answer[#answer + 1] = source[NAME] end
    else
      touch(keys, source[KEY], source[NAME], at_ms, limits.ttl_s, nil, source[TROUBLE])
      raise(keys[source[KEY]], source[ADD])
    end
  end
  note_seen(keys.sources, batch.sources)
  raise(keys.ledger, batch.ledger)
  for _, name in ipairs({'events', 'detections'}) do
    if batch[name].moved then
      move_cursor(keys[name], batch[name])
      note_stream(keys.ledger, name, group_of(keys[name], SCORE_GROUP), batch[name].read)
    end
  end
  if batch.events.moved then
    local groups = groups_of(keys.events)
    if #groups == 1 then redis.call('XTRIM', keys.events, 'MINID', after(batch.events.next))
    else release_inputs(keys.events, {}, groups) end
  end
  if batch.detections.moved then trim_detections(keys.detections, batch.detections, limits.results_keep) end
  if batch.held == '' then redis.call('DEL', keys.held) else redis.call('SET', keys.held, batch.held) end
  redis.call('ZREMRANGEBYSCORE', keys.sources, '-inf', '(' .. whole(at_ms - limits.ttl_s * 1000))
  redis.call('HSET', keys.owner, 'commit', whole(tonumber(args[3]) + 1), 'stall', 0,
    'trying', '', 'caution', batch.caution, 'expires_ms', whole(at_ms + batch.lease_ms))
  return answer
end

---------------------------------------------------------------------------------------- groups
-- Counts what a stream that was deleted took along, and begins its account anew: `base` is what
-- its earlier lives held, all of it done or lost.
local function count_lost(keys, i, name, lost)
  local ledger = keys[5]
  if name == 'detections' then
    local row = redis.call('HMGET', ledger, 'frames_detected', 'frames_cached', 'frames_scored',
      'detections_dead', 'detections_lost_trimmed')
    for k = 1, 5 do row[k] = tonumber(row[k] or 0) end
    lost = row[1] + row[2] - row[3] - row[4] - row[5] - redis.call('XLEN', keys[i])
    redis.call('DEL', keys[7])
  end
  local counter = i <= 2 and 'frames_lost_trimmed' or name .. '_lost_trimmed'
  lost = math.max(0, lost)
  if lost > 0 then redis.call('HINCRBY', ledger, counter, lost) end
  return lost
end

-- Is it the stream that was known? One made anew under its name holds all that was added to it,
-- while of the known one at least what was acked is gone, unless others still read that.
local function is_same(stream, info, acked, seen, last)
  if info['entries-added'] < seen or id_less(info['last-generated-id'], last) then return false end
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  if first and not id_less(last, first[1]) then return true end
  return info['entries-added'] - info['length'] >= acked
end

local function open_group(keys, i, name)
  local stream, ledger, group = keys[i], keys[5], i <= 2 and INPUT_GROUP or SCORE_GROUP
  local info = {['entries-added'] = 0, length = 0, ['last-generated-id'] = '0-0'}
  if redis.call('EXISTS', stream) == 1 then info = pairs_of(redis.call('XINFO', 'STREAM', stream)) end
  local row = redis.call('HMGET', ledger, 'acked:' .. name, 'seen:' .. name, 'last:' .. name)
  local acked, last = tonumber(row[1] or 0), row[3] or '0-0'
  local seen = math.max(acked, tonumber(row[2] or 0))
  local gone, start, word, lost = info['entries-added'] - info['length'], '0-0', 'made', 0
  local read = gone
  if seen > 0 and is_same(stream, info, acked, seen, last) then
    word = 'group'
    if i > 2 then start, read = last, acked end
  elseif seen > 0 or name == 'detections' then
    lost = count_lost(keys, i, name, seen - acked)
    if seen + lost > 0 then
      word = 'stream'
      redis.call('HINCRBY', ledger, 'base:' .. name, seen)
      redis.call('HSET', ledger, 'acked:' .. name, 0, 'seen:' .. name, 0, 'last:' .. name, '0-0')
      redis.call('HINCRBY', ledger, 'epoch', 1)
    end
  end
  if name == 'events' and word ~= 'group' and gone > 0 then
    redis.call('HINCRBY', ledger, 'events_lost_trimmed', gone)
    lost = lost + gone
  end
  redis.call('XGROUP', 'CREATE', stream, group, start, 'MKSTREAM', 'ENTRIESREAD', whole(read))
  return {name, word, lost}
end

-- keys: config. Writes the fields of a deployment's record that are not there, args: name, value
-- and so on; in one step, so that nobody reads a part of it. Returns how many it has written.
local function make_record(keys, args)
  local made = 0
  for i = 1, #args, 2 do made = made + redis.call('HSETNX', keys[1], args[i], args[i + 1]) end
  return made
end

-- keys: frames, recordings, events, detections, ledger, owner, held. Makes the groups that are not
-- there, where they were if they are known. Returns rows {stream, what, lost}; what: 'made' for the
-- first time, 'group' deleted, 'stream' deleted: then whoever owns the partition is fenced.
local function make_groups(keys)
  local rows = {}
  for i, name in ipairs({'frames', 'recordings', 'events', 'detections'}) do
    local group = i <= 2 and INPUT_GROUP or SCORE_GROUP
    if kind_is(keys[i], 'stream') and not group_of(keys[i], group) then
      rows[#rows + 1] = open_group(keys, i, name)
      if i > 2 then redis.call('HSET', keys[6], 'owner', '', 'expires_ms', '0', 'clean', '1') end
    end
  end
  redis.call('HSETNX', keys[5], 'opened_ms', whole(now_ms()))
  return rows
end

---------------------------------------------------------------------------------------- status
-- keys: frames, recordings, events, detections, scores, dead, ledger, owner, sources.
-- Returns msgpack of everything `percipio status` shows of a partition; no bodies travel.
local function survey_stream(stream, name)
  local row = {length = 0, added = 0, lag = 0, pending = 0, consumers = 0}
  if redis.call('EXISTS', stream) == 0 then return row end
  local info = pairs_of(redis.call('XINFO', 'STREAM', stream))
  row.length, row.added = info['length'], info['entries-added']
  local group = group_of(stream, name)
  if not group then return row end
  if name == INPUT_GROUP then group['lag'] = true_lag(stream, groups_of(stream), group, 0) end
  row.lag, row.pending, row.consumers = group['lag'], group['pending'], group['consumers']
  local first = redis.call('XRANGE', stream, '(' .. group['last-delivered-id'], '+', 'COUNT', 1)[1]
  if group['pending'] > 0 then
    row.oldest = redis.call('XPENDING', stream, name)[2]
  elseif first then
    row.oldest = first[1]
  end
  return row
end

local function first_id(stream)
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  return first and first[1] or ''
end

local function survey(keys)
  local owner = redis.call('HMGET', keys[8], 'owner', 'epoch', 'expires_ms', 'stall')
  return cmsgpack.pack({
    frames = survey_stream(keys[1], INPUT_GROUP), recordings = survey_stream(keys[2], INPUT_GROUP),
    events = survey_stream(keys[3], SCORE_GROUP), detections = survey_stream(keys[4], SCORE_GROUP),
    detections_since = first_id(keys[4]), scores_since = first_id(keys[5]),
    dead = redis.call('XLEN', keys[6]), sources = redis.call('ZCARD', keys[9]),
    ledger = pairs_of(redis.call('HGETALL', keys[7])),
    owner = owner[1] or '', epoch = owner[2] or '0', expires_ms = owner[3] or '0',
  })
end

----------------------------------------------------------------------------------- dead letters
-- keys: dead, ledger, target stream | ''. args: id, then the fields to add anew (replay) or
-- nothing (drop). Returns the new entry's id, '' after a drop, or false when it is gone.
local function dead_take(keys, args)
  local found = redis.call('XRANGE', keys[1], args[1], args[1])[1]
  if not found then return false end
  local added = ''
  if #args > 1 then added = redis.call('XADD', keys[3], '*', unpack(args, 2)) end
  drop_dead({dead = keys[1], ledger = keys[2]}, found[1], found[2])
  return added
end

local function register(name, callback, flags)
  redis.register_function{function_name = '__LIB___' .. name, callback = callback, flags = flags}
end

-- allow-oom: a full Redis refuses producers, but workers must be able to drain it.
local DRAIN = {'allow-oom'}
register('detect_commit', detect_commit, DRAIN)
register('detect_audit', detect_audit, DRAIN)
register('shed', shed, DRAIN)
register('prune', prune, DRAIN)
register('renew_entries', renew_entries, DRAIN)
register('claimable', claimable, {'no-writes'})
register('claim', claim, DRAIN)
register('keep_answers', keep_answers, {})  -- no allow-oom: a full Redis keeps none
register('clock', clock, {'no-writes'})
register('beat', beat, DRAIN)
register('acquire', acquire, DRAIN)
register('attempt', attempt, DRAIN)
register('renew', renew, DRAIN)
register('release', release, DRAIN)
register('watermark', watermark, {'no-writes'})
register('score_commit', score_commit, DRAIN)
register('make_record', make_record, {})
register('make_groups', make_groups, DRAIN)
register('survey', survey, {'no-writes'})
register('dead_take', dead_take, {})
