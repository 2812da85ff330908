# Shared by the scripts beside it; sourced, not run.
#
# Downloads and builds live in a cache folder of the user's ($EUXEN_CACHE, else
# $XDG_CACHE_HOME/euxen, else ~/.cache/euxen), so that several checkouts share them.
set -euo pipefail
export LC_ALL=C PATH=/usr/bin:/bin:/usr/sbin:/sbin:$PATH
umask 022

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${EUXEN_CACHE:-${XDG_CACHE_HOME:-${HOME:-$root/build}/.cache}/euxen}
beds=$root/build/beds
mkdir -p "$cache" "$beds"

say() { printf '%s\n' "-- $*" >&2; }
die() { printf '%s\n' "${0##*/}: $*" >&2; exit 1; }

# Makes this script the only one that works on the cache until it ends.
lock_cache() {
    exec 9>"$cache/lock"
    flock -n 9 || { say "waiting for another set-up that uses $cache"; flock 9; }
}

# The Debian mirror that the system's apt uses, with a slash at its end.
mirror() {
    local uri
    uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' 2>/dev/null | head -n 1)
    printf '%s\n' "${uri:-http://deb.debian.org/debian/}"
}

# The mirror of the security suite, likewise.
security_mirror() {
    local uri
    uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm-security' 2>/dev/null | head -n 1)
    printf '%s\n' "${uri:-http://deb.debian.org/debian-security/}"
}

# An apt of our own: its sources, lists and archives lie in the cache, so that the
# system's sources stay as they are. It knows what is installed, and installs nothing.
private_apt() {
    local command=$1; shift
    "$command" -o "Dir::Etc::SourceList=$cache/apt/sources.list" -o Dir::Etc::SourceParts=- \
        -o "Dir::State::Lists=$cache/apt/lists" -o "Dir::Cache=$cache/apt/cache" \
        -o "Dir::State::extended_states=$cache/apt/extended_states" -o Debug::NoLocking=true \
        -o APT::Sandbox::User= -o Acquire::Languages=none -o APT::Install-Recommends=false \
        -o APT::Update::Post-Invoke::= -o DPkg::Post-Invoke::= "$@"
}

# Fetches the package lists of bookworm, its security suite and its backports, once a day.
update_private_apt() {
    local signed="[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    [ -n "$(find "$cache/apt/updated" -mmin -1440 2>/dev/null)" ] && return
    say "fetching Debian's package lists (backports among them) into $cache/apt"
    mkdir -p "$cache/apt/lists/partial" "$cache/apt/cache/archives/partial"
    printf "deb $signed %s %s main\n" "$(mirror)" bookworm "$(mirror)" bookworm-backports \
        "$(security_mirror)" bookworm-security >"$cache/apt/sources.list"
    private_apt apt-get -qq update
    touch "$cache/apt/updated"
}

# fetch_unpack DIR PACKAGE [MEMBER]: downloads a package and unpacks it, or one of its folders.
fetch_unpack() {
    local work
    work=$(mktemp -d "$cache/fetch.XXXXXX")
    mkdir -p "$1"
    (cd "$work" && private_apt apt-get -qq download "$2") || { rm -rf "$work"; die "cannot download $2"; }
    dpkg-deb --fsys-tarfile "$work"/*.deb | tar x -C "$1" "${3:-.}"
    rm -rf "$work"
}
