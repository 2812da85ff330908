#!/bin/bash
# usage: tools/initramfs.sh OUT INIT PROGRAM...
# Makes the guests' initramfs: Debian's static busybox, the script INIT and static programs, as a cpio archive.
. "$(dirname "$0")/lib.sh"
out=$1 init=$2; shift 2
busybox=$cache/busybox/bin/busybox

lock_cache
if [ ! -x "$busybox" ]; then
    update_private_apt
    say "downloading Debian's busybox-static"
    fetch_unpack "$cache/busybox" busybox-static ./bin/busybox
fi
tree=$(mktemp -d); trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree"/{bin,dev,proc,sys,tmp}
cp "$busybox" "$tree/bin/busybox"
install -m 755 "$init" "$tree/init"
[ $# = 0 ] || install -m 755 "$@" "$tree/bin"
(cd "$tree" && "$busybox" find . | "$busybox" sort | "$busybox" cpio -o -H newc 2>/dev/null) >"$out.new"
mv "$out.new" "$out"
