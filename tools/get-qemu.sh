#!/bin/bash
# usage: tools/get-qemu.sh
# Puts QEMU 10 for x86 at build/beds/qemu/, a wrapper `qemu-system-x86_64` beside it.
# Debian 12 has 7.2; the backports suite has 10.0. It is unpacked into the cache, not installed,
# so it meets no other QEMU on the machine. Where backports cannot be reached: Debian 12's own.
. "$(dirname "$0")/lib.sh"
dir=$cache/qemu
wrapper=$beds/qemu-system-x86_64

write_wrapper() { # the lines after the first, the program last
    printf '#!/bin/sh\n%s\n' "$1" >"$wrapper.new" && chmod +x "$wrapper.new" && mv "$wrapper.new" "$wrapper"
}

unpack_backport() {
    local deb
    update_private_apt || return 1
    say "downloading QEMU from bookworm-backports (16 MB) and unpacking it into $dir"
    rm -rf "$dir" "$dir.new"
    # The packages that this machine lacks; apt resolves them and only downloads.
    private_apt apt-get -qq -y --download-only -t bookworm-backports install qemu-system-x86 >/dev/null || return 1
    mkdir -p "$dir.new"
    for deb in "$cache"/apt/cache/archives/*.deb; do dpkg -x "$deb" "$dir.new"; done
    private_apt apt-get clean
    mv "$dir.new" "$dir"
}

starts() { "$wrapper" --version >/dev/null 2>&1; }

wrap_backport() {
    write_wrapper "export LD_LIBRARY_PATH='$dir/usr/lib/x86_64-linux-gnu:$dir/lib/x86_64-linux-gnu'
export QEMU_MODULE_DIR='$dir/usr/lib/x86_64-linux-gnu/qemu'
exec '$dir/usr/bin/qemu-system-x86_64' -L '$dir/usr/share/qemu' -L '$dir/usr/share/seabios' -L '$dir/usr/lib/ipxe/qemu' \"\$@\""
}

starts && exit 0
lock_cache
# Unpacked before: it starts, unless the system has lost a library since then.
[ -x "$dir/usr/bin/qemu-system-x86_64" ] && wrap_backport && starts && exit 0
unpack_backport && wrap_backport && starts && exit 0
say "no QEMU from backports; taking Debian 12's"
"$root/tools/need.sh" qemu
write_wrapper 'exec /usr/bin/qemu-system-x86_64 "$@"'
