#!/bin/bash
# usage: tools/toolchain.sh OUT.mk
# Finds a Rust that can build the image and writes the lines to call it for the Makefile:
# rustup's pinned toolchain if it is there with rust-src, else Debian's (installed if missing).
. "$(dirname "$0")/lib.sh"
out=$1
pinned=$(sed -n 's/^channel = "\(.*\)"/\1/p' "$root/rust-toolchain.toml")

rustup_has() {
    command -v rustup >/dev/null || return 1
    local sysroot
    sysroot=$(cd / && RUSTUP_AUTO_INSTALL=0 rustup run "$pinned" rustc --print sysroot 2>/dev/null) || return 1
    [ -d "$sysroot/lib/rustlib/src/rust/library/core" ] && [ -x "$sysroot/bin/cargo-clippy" ]
}

debian_has() {
    local have
    [ -x /usr/bin/cargo-clippy ] && [ -x /usr/bin/rustfmt ] || return 1
    have=$(dpkg-query -W -f '${Version}' rustc-web 2>/dev/null) || return 1
    dpkg --compare-versions "$have" ge "${pinned%.*}" && [ -d /usr/lib/rustlib/src/rust/library/core ]
}

use_rustup() {
    printf '%s\n' "CARGO := rustup run $pinned cargo" 'CARGO_CLIPPY := $(CARGO) clippy' 'CARGO_FMT := $(CARGO) fmt'
}

# Called by their full names: cargo prefers rustup's proxies in ~/.cargo/bin for its subcommands.
use_debian() {
    printf '%s\n' 'export PATH := /usr/bin:/bin:/usr/sbin:/sbin:$(PATH)' 'CARGO := /usr/bin/cargo' \
        'CARGO_CLIPPY := /usr/bin/cargo-clippy clippy' 'CARGO_FMT := /usr/bin/cargo-fmt fmt'
}

"$root/tools/need.sh" build
if rustup_has; then lines=$(use_rustup)
elif debian_has || { "$root/tools/need.sh" rust && debian_has; }; then lines=$(use_debian)
elif command -v rustup >/dev/null; then
    say "installing Rust $pinned by rustup"
    rustup toolchain install "$pinned" --profile minimal -c rust-src -c rustfmt -c clippy >&2
    lines=$(use_rustup)
else die "no Rust $pinned: install rustup, or Debian's rustc-web from the security suite"; fi
mkdir -p "$(dirname "$out")"
printf '# Written by tools/toolchain.sh.\n%s\n' "$lines" >"$out"
