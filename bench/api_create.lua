-- wrk: one thread that creates pods of different names; TOKEN and PREFIX are of the environment.
local count = 0
local head = {["Authorization"] = "Bearer " .. os.getenv("TOKEN"), ["Content-Type"] = "application/json"}
local path = "/api/v1/namespaces/default/pods"
local prefix = os.getenv("PREFIX")

request = function()
  count = count + 1
  local body = '{"apiVersion":"v1","kind":"Pod","metadata":{"name":"' .. prefix .. count ..
    '","labels":{"app":"web"}},"spec":{"schedulerName":"nobody","containers":[{"name":"main",' ..
    '"image":"registry.example/app:1","ports":[{"containerPort":80}],"env":[{"name":"A","value":"b"}],' ..
    '"resources":{"requests":{"cpu":"100m","memory":"64Mi"}}}]}}'
  return wrk.format("POST", path, head, body)
end
