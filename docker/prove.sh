#!/usr/bin/env bash
# Builds the images and runs the compose project on a Docker engine. It takes some minutes, needs docker
# with compose, python3 and the ports 18000 to 18090, and removes what it started.
#
#   docker/prove.sh            build, then all of it
#   docker/prove.sh --no-build
#
# PIP_CONF names a pip.conf for the builds. docker/standin.sh makes an engine and base images if no
# registry can be reached. docs/how-to/containers.md has the results, and what this cannot prove.
set -euo pipefail
cd "$(dirname "$0")/.."

secret=()
[ -z "${PIP_CONF:-}" ] || secret=(--secret "id=pip,src=$PIP_CONF")
scratch=$(mktemp -d)
chmod 755 "$scratch"
export QYOLO_PORT=18000 QYOLO_FP32_PORT=18001 QYOLO_INT8_PORT=18002
export QYOLO_PROMETHEUS_PORT=18090 QYOLO_GRAFANA_PORT=18030 QYOLO_SHADOW=fp32:1
export COMPOSE_PROJECT_NAME=qyolo-proof COMPOSE_PROGRESS=quiet
url=http://127.0.0.1

step() { printf '\n== %s\n' "$*"; }
expect() {  # expect EXPECTED ACTUAL NAME
  [ "$1" = "$2" ] || { echo "FAILED: $3: $1 was expected, not $2"; exit 1; }
  echo "ok: $3: $2"
}
status() { curl -s -o /dev/null -w '%{http_code}' "$@"; }
finish() {
  docker compose --profile '*' down --volumes --timeout 5 || true
  rm -rf "$scratch"
}
trap finish EXIT

if [ "${1:-}" != --no-build ]; then
  step "images"
  for kind in cpu gpu tensorrt; do
    docker build --quiet "${secret[@]}" -f "docker/$kind.Dockerfile" -t "qyolo:$kind" .
  done
fi
docker image ls qyolo

step "docker compose up"
began=$(date +%s)
docker compose up --detach --wait
echo "ready after $(($(date +%s) - began)) s, the build included"
docker compose logs build | tail -4
expect 200 "$(status $url:18000/readyz)" "ready"
curl -sf -F file=@zoo/samples/astronaut.jpg $url:18000/v1/detect | tee "$scratch/answer.json"
grep -q '"class_name":"person"' "$scratch/answer.json"

step "privileges of the server"
server=$(docker compose ps -q qyolo)
field() { docker exec "$server" sed -n "s/^$1:\t//p" /proc/1/status; }
expect 10001 "$(docker exec "$server" id -u)" "user"
expect 0000000000000000 "$(field CapEff)" "capabilities"
expect 0000000000000000 "$(field CapBnd)" "capabilities that it could gain"
expect 1 "$(field NoNewPrivs)" "no new privileges"
expect 2 "$(field Seccomp)" "seccomp filter"
docker exec "$server" sh -c 'touch /opt/qyolo/new 2>/dev/null' && exit 1 || echo "ok: nothing can be written"
docker exec "$server" sh -c 'command -v cc gcc c++' && exit 1 || echo "ok: no compiler"
expect 127.0.0.1:18000 "$(docker compose port qyolo 8000)" "the port is published"
docker stats --no-stream --format '{{.Name}} {{.MemUsage}} {{.PIDs}} threads' "$server"

step "a second up builds nothing"
docker compose stop --timeout 40
expect 0 "$(docker inspect "$server" --format '{{.State.ExitCode}}')" "stopped, exit code"
docker compose down
began=$(date +%s%N)
docker compose up --detach --wait
echo "ready after $((($(date +%s%N) - began) / 1000000)) ms"
docker compose logs build | grep 'built in' && exit 1 || echo "ok: the cache had the build"

step "on an address that others reach, it does not start without keys"
QYOLO_ADDRESS=0.0.0.0 docker compose up --detach qyolo
sleep 5
docker compose logs --tail 3 qyolo
docker compose logs qyolo | grep 'others can reach 0.0.0.0' >/dev/null
key=$(python3 -c 'import secrets; print(secrets.token_hex(32))')
echo "$key" > "$scratch/metrics-key"
echo "proof:sha256:$(printf %s "$key" | sha256sum | cut -d' ' -f1)" > "$scratch/keys"
chmod 644 "$scratch"/*
export QYOLO_KEYS=$scratch/keys QYOLO_METRICS_KEY=$scratch/metrics-key
with_keys=(docker compose -f docker-compose.yml -f docker/keys.yml)
QYOLO_ADDRESS=0.0.0.0 "${with_keys[@]}" up --detach --wait qyolo
expect 200 "$(status $url:18000/healthz)" "probes need no key"
expect 401 "$(status -F file=@zoo/samples/cat.jpg $url:18000/v1/detect)" "without a key"
expect 200 "$(status -H "X-API-Key: $key" -F file=@zoo/samples/cat.jpg $url:18000/v1/detect)" "with it"
expect 401 "$(status $url:18000/metrics)" "metrics without a key"

step "three servers and Prometheus"
"${with_keys[@]}" --profile ab up --detach --wait
"${with_keys[@]}" --profile observe up --detach --wait prometheus
if docker image inspect grafana/grafana:13.2.3 > "$scratch/grafana" 2>&1; then
  "${with_keys[@]}" --profile observe up --detach --wait
  curl -sf $url:18030/api/dashboards/uid/qyolo | grep '"provisioned":true' >/dev/null
  echo "ok: Grafana has the dashboard"
else
  echo "SKIPPED: Grafana's image is not here"
fi
for variant in fp32 int8; do
  port=$([ $variant = fp32 ] && echo 18001 || echo 18002)
  expect $variant "$(curl -sf -H "X-API-Key: $key" -F file=@zoo/samples/cat.jpg "$url:$port/v1/detect" |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["variant"])')" "variant on $port"
done
echo "traffic for two minutes"
end=$(($(date +%s) + 120))
while [ "$(date +%s)" -lt $end ]; do
  for port in 18000 18001 18002; do
    for photo in zoo/samples/*.jpg; do
      curl -s -o /dev/null -H "X-API-Key: $key" -F "file=@$photo" "$url:$port/v1/detect"
    done
    curl -s -o /dev/null -H "X-API-Key: $key" -F file=@README.md "$url:$port/v1/detect"
  done
done

step "Prometheus"
prometheus=$url:18090
curl -sf $prometheus/api/v1/targets | python3 -c '
import json, sys
for each in json.load(sys.stdin)["data"]["activeTargets"]:
    print(each["labels"]["instance"], each["scrapeUrl"], each["health"], each["lastError"])
    assert each["health"] == "up"'
curl -sf $prometheus/api/v1/rules | python3 -c '
import json, sys
for group in json.load(sys.stdin)["data"]["groups"]:
    for rule in group["rules"]:
        assert rule["health"] == "ok", rule
    print("ok:", group["name"], len(group["rules"]), "rules")'
python3 docker/queries.py $prometheus

printf '\nall proved\n'
