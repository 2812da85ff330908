#!/bin/bash
# usage: tools/need.sh PURPOSE...
# Installs the packages of packages.txt that the purposes name and that are missing, by
# apt-get from the system's own sources, through sudo where not root. Says what and why.
. "$(dirname "$0")/lib.sh"

missing=() reasons=()
while read -r purpose package why; do
    [[ " $* " == *" $purpose "* ]] || continue
    dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed && continue
    [[ " ${missing[*]-} " == *" $package "* ]] && continue
    missing+=("$package") reasons+=("   $package: $why")
done < <(grep -v '^#' "$(dirname "$0")/packages.txt")
[ ${#missing[@]} -gt 0 ] || exit 0

say "installing Debian packages that are missing (apt-get, the system's sources as they are):"
printf '%s\n' "${reasons[@]}" >&2
if [ "$(id -u)" = 0 ]; then as_root=(env); else
    command -v sudo >/dev/null || die "not root and no sudo; as root run: apt-get install --no-install-recommends ${missing[*]}"
    as_root=(sudo)
    say "sudo may ask for your password"
fi
"${as_root[@]}" apt-get -qq update
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0 --no-install-recommends --no-remove \
    install "${missing[@]}" >"$root/build/apt-install.log" 2>&1 ||
    { tail -n 20 "$root/build/apt-install.log" >&2; die "apt-get could not install: ${missing[*]}"; }
