#!/usr/bin/env bash
# Tries docker-compose.yml with an engine and the image rookery:dev at hand: the cluster becomes ready, documents written
# through n1 are read through n2 and n3, and without n1 the other two serve. Ends with 0 only if all of it held.
set -euo pipefail
cd "$(dirname "$0")/.."

. deploy/compose.sh rookery-test 20s docker-compose.yml

step "up"
up

step "hardening"
for node in n1 n2 n3; do
  seen=$(docker inspect -f '{{.Config.User}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}}' \
    "$("${compose[@]}" ps -q $node)")
  [ "$seen" = "65532:65532 true [ALL] [no-new-privileges:true]" ] || fail "$node runs as $seen"
done

step "written through n1, read through n2 and n3"
through n1 db create sales >/dev/null
for number in $(seq 20); do
  through n1 doc put sales "orders/$number" "{ \"number\" : $number.0 }" >/dev/null
done
for node in n2 n3; do
  for number in $(seq 20); do
    stored=$(through $node doc get sales "orders/$number")
    [ "$stored" = "{ \"number\" : $number.0 }" ] || fail "$node gave $stored for orders/$number"
  done
done

step "n1 killed; n2 and n3 serve"
"${compose[@]}" kill n1 >/dev/null 2>&1
through n2 doc put sales after '{"n1":"dead"}' >/dev/null || fail "n2 takes no write"
[ "$(through n3 doc get sales after)" = '{"n1":"dead"}' ] || fail "n3 does not read"
if through n1 doc get sales after 2>/dev/null; then fail "n1 answers though it was killed"; fi

step "n1 back; setup does nothing a second time"
"${compose[@]}" up -d >/dev/null 2>&1
for _ in $(seq 60); do
  [ "$(through n1 doc get sales after 2>/dev/null)" = '{"n1":"dead"}' ] && break
  sleep 0.5
done
[ "$(through n1 doc get sales after)" = '{"n1":"dead"}' ] || fail "n1 does not come back"
through n1 cluster status

step "all of it held"
