#!/bin/bash
# usage: tools/get-xen.sh
# Puts Debian 12's Xen at build/beds/xen.gz, as its package has it: the hypervisor to compare with.
. "$(dirname "$0")/lib.sh"
dir=$cache/xen

[ -e "$beds/xen.gz" ] && exit 0
lock_cache
if [ ! -e "$dir/boot/xen-4.17-amd64.gz" ]; then
    update_private_apt
    say "downloading Debian's Xen (xen-hypervisor-4.17-amd64)"
    rm -rf "$dir.new" "$dir"
    fetch_unpack "$dir.new" xen-hypervisor-4.17-amd64 ./boot
    mv "$dir.new" "$dir"
fi
ln -sf "$dir/boot/xen-4.17-amd64.gz" "$beds/xen.gz"
