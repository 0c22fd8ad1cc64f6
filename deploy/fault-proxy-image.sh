# Builds the image rookery-fault-proxy:dev FROM scratch: the proxy of the tests, which speaks Toxiproxy's interface.
# Sourced by `./dev image chaos`, after deploy/image.sh, whose folders it uses.
# shellcheck shell=bash

CARGO_TARGET_DIR=$image_target RUSTFLAGS="-C target-feature=+crt-static -L native=$libstdcxx" \
  cargo build --locked --release -p cluster-tests --bin fault-proxy --target "$triple"

proxy_context=$image_target/fault-proxy-context
rm -rf "$proxy_context"
mkdir -p "$proxy_context"
cp "$image_target/$triple/release/fault-proxy" "$proxy_context/fault-proxy"
strip "$proxy_context/fault-proxy"
"$proxy_context/fault-proxy" --version >/dev/null || { say "the static fault proxy does not run"; exit 1; }
docker build -q -f deploy/Dockerfile.fault-proxy -t rookery-fault-proxy:dev "$proxy_context" >/dev/null
say "rookery-fault-proxy:dev is $(docker image inspect -f '{{.Size}}' rookery-fault-proxy:dev | awk '{printf "%.0f MB", $1/1e6}')"
