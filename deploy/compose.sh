# What the trials of the compose files share; sourced by them with the project's name, the time that a call may take, and
# the files. Leaves `rookery`, `compose` and `folder`, and takes everything down at the end.
#
# ROOKERY_BIN names the binary that speaks to the cluster from outside; else the one that `./dev image` built is taken.
rookery=${ROOKERY_BIN:-${ROOKERY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/rookery}/image-target/context/rookery}
if command -v docker-compose >/dev/null; then compose=(docker-compose); else compose=(docker compose); fi
compose+=(-p "$1-$$")
call_timeout=$2
for file in "${@:3}"; do compose+=(-f "$file"); done
folder=$(mktemp -d)
finish() {
  status=$?
  if [ $status -ne 0 ]; then "${compose[@]}" logs --tail 30 || true; fi
  "${compose[@]}" down -v -t 5 >/dev/null 2>&1 || true
  rm -rf "$folder"
  exit $status
}
trap finish EXIT

step() { printf '== %s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*"; exit 1; }
through() { # NODE ARGUMENTS...: rookery as the administrator, through one node alone
  local port=744${1#n}
  shift
  "$rookery" --context-file "$folder/admin.zip" --address "localhost:$port" --timeout "$call_timeout" "$@"
}
up() { # until the cluster is ready; its administrator's package is in the folder then
  local ready status
  "${compose[@]}" up -d 2>&1 | tail -n 3
  ready=$("${compose[@]}" ps -q ready)
  status=$(timeout 120 docker wait "$ready") || fail "ready did not end within 120 s"
  [ "$status" = 0 ] || fail "ready ended with $status"
  docker cp "$ready:/client/admin.zip" "$folder/admin.zip"
}
