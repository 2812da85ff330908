#!/bin/bash
# usage: tools/get-bochs.sh
# Puts Bochs 3.0 at build/beds/bochs: the source of Debian's package (trixie), with bochs.patch,
# built without display and debugger and with VT-x, AMD-V and several CPUs. Kept in the cache.
. "$(dirname "$0")/lib.sh"
sha256=78f6c73d4a6472d5130a87ab9dc306d02c7c71ed8e25b3a8ef642e2a7acd282b
patch=$root/tools/bochs.patch
dir=$cache/bochs-3.0-$(sha256sum <"$patch" | cut -c1-12)

build() {
    local archive=pool/main/b/bochs/bochs_3.0+dfsg.orig.tar.xz
    work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
    say "downloading the source of Bochs 3.0 (4 MB)"
    private_apt /usr/lib/apt/apt-helper -qq download-file "$(mirror)$archive" bochs.tar.xz "SHA256:$sha256" >/dev/null ||
        die "cannot download $archive from $(mirror)"
    tar xf bochs.tar.xz
    cd bochs-3.0*
    git apply "$patch"
    say "building Bochs 3.0; about 2 minutes on 2 CPUs, once"
    ./configure --enable-vmx=2 --enable-svm --enable-smp --enable-cpu-level=6 --enable-x86-64 --enable-all-optimizations \
        --enable-avx --enable-evex --with-nogui CFLAGS=-O3 CXXFLAGS=-O3 >configure.log 2>&1 ||
        { tail -n 20 configure.log >&2; die "Bochs cannot be configured"; }
    make -j"$(nproc)" >make.log 2>&1 || { tail -n 20 make.log >&2; die "Bochs does not build"; }
    install -D -m 755 bochs "$dir/bochs"
}

"$root/tools/need.sh" bochs
if [ ! -x "$dir/bochs" ]; then
    lock_cache
    [ -x "$dir/bochs" ] || build
fi
ln -sf "$dir/bochs" "$beds/bochs"
