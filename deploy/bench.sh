# Sourced by `./dev bench`: the load generator against three nodes on loopback, release build.
rookery=$CARGO_TARGET_DIR/release/rookery
folder=$(mktemp -d)
export ROOKERY_CONFIG=$folder/contexts
"$rookery" dev --nodes 3 --data "$folder/cluster" >"$folder/dev.txt" 2>&1 &
playground=$!
trap 'kill "$playground" 2>/dev/null; wait "$playground" 2>/dev/null; rm -rf "$folder"' EXIT
for _ in $(seq 120); do
  grep -q 'The cluster serves' "$folder/dev.txt" && break
  sleep 0.5
done
nodes=$(pgrep -P "$playground")
idle=$(for pid in $nodes; do grep VmRSS "/proc/$pid/status"; done)
"$rookery" db create bench >/dev/null
pids=$(for pid in $nodes; do printf -- '--pid %s ' "$pid"; done)
for clients in 1 64 256; do
  for op in put get; do
    # shellcheck disable=SC2086
    "$rookery" bench bench --op "$op" --clients "$clients" --duration "${BENCH_SECONDS:-10}" --size 256 $pids -o json
  done
done
say "resident memory of the idle nodes:"
echo "$idle" >&2
