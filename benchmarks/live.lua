-- Paced load on a service for wrk: questions as in questions.lua, or batches of events; VITRAIL_MODE says which.
--
-- wrk is a closed loop: a connection sends after its answer came. Here the moments of sending are laid down beforehand, VITRAIL_RATE a second, and
-- whichever connection is free takes the next one, so that with enough connections the load is an open loop. How late requests went out is
-- reported beside the latencies (late_p99_ms): where it is not small, the latencies of wrk flatter. A rate of 0 sends as fast as answers come.

local ffi = require("ffi")
ffi.cdef [[
  typedef struct { long seconds; long nanoseconds; } moment;
  int clock_gettime(int clock, moment *now);
]]
local moment = ffi.new("moment")

local function now()
  ffi.C.clock_gettime(1, moment)
  return tonumber(moment.seconds) * 1e3 + tonumber(moment.nanoseconds) / 1e6
end

dofile(os.getenv("VITRAIL_QUESTIONS"))
local ask, ask_init, ask_setup = request, init, setup
local mode, rate, size = os.getenv("VITRAIL_MODE"), tonumber(os.getenv("VITRAIL_RATE")), tonumber(os.getenv("VITRAIL_BATCH") or "1")
local prefix = os.getenv("VITRAIL_PREFIX") or "e"
local next_slot, slots = nil, {}
local users, items
local all = {}

sent, acknowledged, refused, late_p99 = 0, 0, 0, 0
local lates = {}

function setup(thread)
  all[#all + 1] = thread
  ask_setup(thread)
end

function init(args)
  ask_init(args)
  if mode == "events" then
    users, items = {}, {}
    for line in io.lines(os.getenv("VITRAIL_USERS")) do users[#users + 1] = line end
    for line in io.lines(os.getenv("VITRAIL_ITEMS")) do items[#items + 1] = line end
  end
  if rate == 0 then delay = nil end
end

if rate > 0 then
  function delay()
    next_slot = next_slot and next_slot + 1e3 / rate or now()
    slots[#slots + 1] = next_slot
    return math.max(0, math.floor(next_slot - now()))
  end
end

local function event()
  sent = sent + 1
  return string.format('{"event_id": "%s-%d", "user": "%s", "item": "%s"}', prefix, sent, users[math.random(#users)], items[math.random(#items)])
end

function request()
  if rate > 0 then
    local slot = table.remove(slots, 1)
    if slot then lates[#lates + 1] = math.max(0, now() - slot) end
  end
  if mode ~= "events" then return ask() end
  local body
  if size == 1 then
    body = event()
  else
    local batch = {}
    for place = 1, size do batch[place] = event() end
    body = '{"events": [' .. table.concat(batch, ", ") .. "]}"
  end
  return wrk.format("POST", "/events", { ["Content-Type"] = "application/json" }, body)
end

if mode == "events" then
  function response(status)
    if status == 200 then acknowledged = acknowledged + size else refused = refused + size end
  end
end

-- threads have states of their own: what `done` may read must be a global that is up to date at every request
local plain_request = request
function request()
  local text = plain_request()
  if #lates % 100 == 0 or #lates < 100 then
    local copy = {}
    for place = 1, #lates do copy[place] = lates[place] end
    table.sort(copy)
    late_p99 = #copy > 0 and copy[math.max(1, math.ceil(#copy * 0.99))] or 0
  end
  return text
end

function done(summary, latency, requests)
  local e, thread = summary.errors, all[1]
  io.write(string.format(
    'RESULT {"requests": %d, "seconds": %.3f, "mean_ms": %.3f, "p50_ms": %.3f, "p90_ms": %.3f, "p99_ms": %.3f, "p999_ms": %.3f, "max_ms": %.3f, '
      .. '"late_p99_ms": %.3f, "events_acknowledged": %d, "events_refused": %d, '
      .. '"errors": {"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}}\n',
    summary.requests, summary.duration / 1e6, latency.mean / 1e3, latency:percentile(50) / 1e3, latency:percentile(90) / 1e3,
    latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3, latency.max / 1e3, tonumber(thread:get("late_p99") or 0),
    tonumber(thread:get("acknowledged") or 0), tonumber(thread:get("refused") or 0), e.connect, e.read, e.write, e.status, e.timeout))
end
