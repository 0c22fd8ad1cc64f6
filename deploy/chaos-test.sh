#!/usr/bin/env bash
# A short schedule of faults on the cluster of docker-compose.yml and docker-compose.chaos.yml, through the HTTP interface
# of the proxy: cut, one-way cut, latency, broken connections, a killed container, a revocation behind a cut. Ends with 0
# only if all of it held. Needs an engine and the images of `./dev image chaos`.
#
# CHAOS_PROXY_IMAGE names another image of a proxy, such as one of Toxiproxy itself.
set -euo pipefail
cd "$(dirname "$0")/.."

. deploy/compose.sh rookery-chaos 4s docker-compose.yml docker-compose.chaos.yml
api=http://127.0.0.1:8474
links=(12 13 21 23 31 32)
within() { # SECONDS COMMAND...: until it succeeds
  local until=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $until ] || return 1
    sleep 0.1
  done
}
write() { # NODE ID: a document that is remembered for the end
  through "$1" doc put sales "$2" "{\"id\":\"$2\"}" >/dev/null && echo "$2" >>"$folder/acknowledged"
}
writes() { within 8 write "$@" || fail "$1 takes no write: $2"; }
reads() { [ "$(through "$1" doc get sales "$2" 2>/dev/null)" = "{\"id\":\"$2\"}" ]; }
refuses() { # NODE: it serves nothing, and says so in time
  local began=$SECONDS status=0
  through "$1" doc get sales first >/dev/null 2>&1 || status=$?
  [ $status -eq 7 ] || [ $status -eq 8 ] || fail "$1 is alone and ended with $status, not 7 or 8"
  [ $((SECONDS - began)) -le 6 ] || fail "$1 is alone and took $((SECONDS - began)) s to say so"
}
recovered() { # every node reads the document, within the 10 s of the contract
  for node in n1 n2 n3; do within 10 reads "$node" "$1" || fail "$node does not read $1 within 10 s"; done
}

call() { # METHOD PATH [BODY]
  curl -sS -f -o /dev/null -X "$1" "$api$2" ${3:+-H 'Content-Type: application/json' -d "$3"} || fail "$1 $2"
}
toxic() { # LINK STREAM TYPE ATTRIBUTES
  call POST "/proxies/link$1/toxics" "{\"name\":\"$3_$2\",\"type\":\"$3\",\"stream\":\"$2\",\"attributes\":$4}"
}
heal() { call POST /reset; }
cut() { # NUMBER: the node hears nobody, and nobody hears it
  for link in "${links[@]}"; do
    case $link in
      *$1*) toxic "$link" upstream timeout '{"timeout":0}'; toxic "$link" downstream timeout '{"timeout":0}' ;;
    esac
  done
}
mute() { # NUMBER: nobody hears the node, and it hears all
  for link in "${links[@]}"; do
    case $link in
      $1?) toxic "$link" upstream timeout '{"timeout":0}' ;;
      ?$1) toxic "$link" downstream timeout '{"timeout":0}' ;;
    esac
  done
}
each() { # TYPE ATTRIBUTES: on every link, in both directions
  for link in "${links[@]}"; do
    toxic "$link" upstream "$1" "$2"
    toxic "$link" downstream "$1" "$2"
  done
}

step "up, with a proxy in each directed link"
"${compose[@]}" up -d toxiproxy 2>&1 | tail -n 1
within 30 curl -sf "$api/version" || fail "the proxy does not answer"
proxies=
for link in "${links[@]}"; do
  proxies+="{\"name\":\"link$link\",\"listen\":\"0.0.0.0:210$link\",\"upstream\":\"n${link#?}:7444\",\"enabled\":true},"
done
call POST /populate "[${proxies%,}]"
up
within 20 through n1 db create sales || fail "no database"
writes n1 first
recovered first
"$rookery" --context-file "$folder/admin.zip" --address localhost:7441 --timeout 10s \
  cert generate reader --clearance user --db sales:r --out "$folder/reader.zip" >/dev/null
reader() { "$rookery" --context-file "$folder/reader.zip" --address "localhost:744${1#n}" --timeout 4s doc get sales first; }
within 10 reader n3 || fail "the reader is not let in"
thumbprint=$("$rookery" --context-file "$folder/reader.zip" --address localhost:7441 whoami -o json |
  grep -o '"thumbprint": *"[0-9a-f]*"' | grep -o '[0-9a-f]\{64\}') || fail "whoami tells no thumbprint"

step "each node cut off in turn: the others take writes, it serves nothing, and is back within 10 s"
for number in 1 2 3; do
  cut $number
  sleep 2.5 # The lease of what was confirmed before.
  refuses "n$number"
  writes "n$((number % 3 + 1))" "without-n$number"
  heal
  recovered "without-n$number"
done

step "each node mute in turn: it hears all, nobody hears it"
for number in 1 2 3; do
  mute $number
  writes "n$((number % 3 + 1))" "mute-n$number"
  heal
  recovered "mute-n$number"
done

step "latency of 60 ± 30 ms on every link"
each latency '{"latency":60,"jitter":30}'
for number in 1 2 3 4 5; do writes "n$((number % 3 + 1))" "slow-$number"; done
heal
recovered slow-5

step "connections that end after 20,000 bytes, then resets"
each limit_data '{"bytes":20000}'
for number in 1 2 3 4 5; do writes "n$((number % 3 + 1))" "cut-short-$number"; done
heal
toxic 12 upstream reset_peer '{"timeout":100}'
toxic 21 upstream reset_peer '{"timeout":100}'
writes n3 resets
heal
recovered resets

step "a revocation while n3 is cut off: acknowledged, and n3 lets nobody in, then or later"
cut 3
within 10 through n1 cert delete --yes "$thumbprint" || fail "the revocation is not acknowledged"
if reader n3 >/dev/null 2>&1; then fail "n3 let a revoked certificate in while it was alone"; fi
if reader n1 >/dev/null 2>&1; then fail "n1 let a revoked certificate in"; fi
heal
until_ready=$((SECONDS + 10))
until reads n3 resets; do
  if reader n3 >/dev/null 2>&1; then fail "n3 let a revoked certificate in while it recovered"; fi
  [ $SECONDS -lt $until_ready ] || fail "n3 is not back within 10 s"
done
if reader n3 >/dev/null 2>&1; then fail "n3 lets a revoked certificate in"; fi

step "n2 killed and started again"
"${compose[@]}" kill n2 >/dev/null 2>&1
writes n1 without-killed
"${compose[@]}" up -d n2 >/dev/null 2>&1
within 30 reads n2 without-killed || fail "n2 does not come back"

step "every acknowledged write on every node"
while read -r id; do
  for node in n1 n2 n3; do reads $node "$id" || fail "$node lost $id"; done
done <"$folder/acknowledged"
through n1 cluster status

step "all of it held ($(wc -l <"$folder/acknowledged") acknowledged writes)"
