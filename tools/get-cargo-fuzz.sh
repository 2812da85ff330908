#!/bin/bash
# usage: tools/get-cargo-fuzz.sh
# Builds cargo-fuzz 0.13 from the crate registry, once, into the user's cache folder.
. "$(dirname "$0")/lib.sh"

[ -x "$cache/cargo-fuzz/bin/cargo-fuzz" ] && exit 0
lock_cache
say "building cargo-fuzz (a minute or two)"
"${CARGO:-cargo}" install --quiet cargo-fuzz --version '^0.13' --root "$cache/cargo-fuzz"
