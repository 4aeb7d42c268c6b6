-- Random questions to /recommend for wrk: half by user (one in twenty unknown), half by a history of 1 to 10 items.
-- The ids come from the files in VITRAIL_USERS and VITRAIL_ITEMS, one a line.

local function lines(path)
  local all = {}
  for line in io.lines(path) do all[#all + 1] = line end
  return all
end

local function quoted(text)
  return '"' .. text:gsub('\\', '\\\\'):gsub('"', '\\"') .. '"'
end

local function escaped(text)
  return (text:gsub("[^%w%-_%.~]", function(c) return string.format("%%%02X", string.byte(c)) end))
end

local users, items
local threads = 0

function setup(thread)
  threads = threads + 1
  thread:set("seed", threads)
end

function init(args)
  math.randomseed(seed)
  users, items = lines(os.getenv("VITRAIL_USERS")), lines(os.getenv("VITRAIL_ITEMS"))
end

function request()
  if math.random() < 0.5 then
    local user = math.random() < 0.05 and "nobody-" .. math.random(1000000) or users[math.random(#users)]
    return wrk.format("GET", "/recommend?k=10&user=" .. escaped(user))
  end
  local history = {}
  for place = 1, math.random(10) do history[place] = quoted(items[math.random(#items)]) end
  local body = '{"history": [' .. table.concat(history, ", ") .. '], "k": 10}'
  return wrk.format("POST", "/recommend", { ["Content-Type"] = "application/json" }, body)
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    'RESULT {"requests": %d, "seconds": %.3f, "mean_ms": %.3f, "p50_ms": %.3f, "p90_ms": %.3f, "p99_ms": %.3f, "p999_ms": %.3f, "max_ms": %.3f, '
      .. '"errors": {"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}}\n',
    summary.requests, summary.duration / 1e6, latency.mean / 1e3, latency:percentile(50) / 1e3, latency:percentile(90) / 1e3,
    latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3, latency.max / 1e3, e.connect, e.read, e.write, e.status, e.timeout))
end
