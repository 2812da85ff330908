#!/bin/bash
# usage: tools/get-kernels.sh KIND...        (kinds: 6.1 6.1-cloud 6.12 6.12-cloud)
# Puts Debian's kernels at build/beds/vmlinuz-KIND, as their packages have them: 6.1 from
# bookworm, 6.12 from bookworm-backports. Downloaded and unpacked into the cache, not installed.
. "$(dirname "$0")/lib.sh"

# The package that the suite's metapackage stands for today.
package_of() {
    local meta=linux-image-amd64
    [[ $1 == *-cloud ]] && meta=linux-image-cloud-amd64
    private_apt apt-cache show "$meta" | awk -v series="Version: ${1%-cloud}." '
        index($0, series) == 1 { wanted = 1 }
        wanted && /^Depends:/  { print $2; exit }
        /^$/                   { wanted = 0 }'
}

fetch() {
    local kind=$1 package dir=$cache/kernels/$1
    update_private_apt
    package=$(package_of "$kind")
    [ -n "$package" ] || die "no kernel $kind among Debian's packages"
    say "downloading Debian's kernel $kind ($package)"
    rm -rf "$dir.new" "$dir"
    fetch_unpack "$dir.new" "$package" ./boot # no modules: the guests here need none
    mv "$dir.new" "$dir"
}

for kind; do
    [[ $kind =~ ^6\.(1|12)(-cloud)?$ ]] || die "no such kind of kernel: $kind"
    [ -e "$beds/vmlinuz-$kind" ] && continue
    lock_cache
    ls "$cache/kernels/$kind/boot/vmlinuz-"* >/dev/null 2>&1 || fetch "$kind"
    ln -sf "$cache/kernels/$kind"/boot/vmlinuz-* "$beds/vmlinuz-$kind"
done
