# Builds the container image rookery:dev FROM scratch, from a static binary built on this machine. Sourced by `./dev image`.
# shellcheck shell=bash
#
# The binary needs no file of the image: glibc is linked statically (`crt-static`, with an explicit --target, so that
# build scripts stay dynamic). The static libstdc++ must come first and alone in its folder: otherwise the program links
# without an error and crashes.

image_target=$cache/image-target
libstdcxx=$image_target/libstdc++
triple=$(uname -m)-unknown-linux-gnu
mkdir -p "$libstdcxx"
cp "$(g++ -print-file-name=libstdc++.a)" "$libstdcxx/"

CARGO_TARGET_DIR=$image_target RUSTFLAGS="-C target-feature=+crt-static -L native=$libstdcxx" \
  cargo build --locked --release -p rookery --target "$triple"

context=$image_target/context
rm -rf "$context"
mkdir -p "$context"
# Mount points. Only folders below the copied one keep their mode.
for folder in etc/rookery var/lib/rookery setup/ca setup/admin setup/n1 setup/n2 setup/n3; do
  mkdir -p "$context/rootfs/$folder"
  chmod 0700 "$context/rootfs/$folder"
done
cp "$image_target/$triple/release/rookery" "$context/rookery"
strip "$context/rookery"
"$context/rookery" --version >/dev/null || { say "the static binary does not run"; exit 1; }

if ! docker info >/dev/null 2>&1; then
  say "no Docker engine answers; the image's content is in $context (deploy/Dockerfile.binary builds it)"
  exit 1
fi
docker build -q -f deploy/Dockerfile.binary -t rookery:dev "$context" >/dev/null
say "rookery:dev is $(docker image inspect -f '{{.Size}}' rookery:dev | awk '{printf "%.0f MB", $1/1e6}')"
