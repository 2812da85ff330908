#!/bin/bash
# usage: tools/iso.sh OUT GRUB_CFG [NAME=]FILE...
# Makes a bootable image for BIOS and UEFI with the given files in /boot and GRUB's menu.
# $GRUB_DIR names one platform's folder, for a smaller image that boots by that platform alone.
. "$(dirname "$0")/lib.sh"
out=$1 menu=$2; shift 2

tree=$(mktemp -d); trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree/boot/grub"
cp "$menu" "$tree/boot/grub/grub.cfg"
for file; do
    name=${file%%=*}
    [[ $file == *=* ]] || name=$(basename "$file")
    cp -L "${file#*=}" "$tree/boot/$name"
done
grub-mkrescue ${GRUB_DIR:+-d "$GRUB_DIR"} -o "$out.new" "$tree" >"$out.log" 2>&1 ||
    { tail -n 5 "$out.log" >&2; die "grub-mkrescue failed, see $out.log"; }
mv "$out.new" "$out"; rm -f "$out.log"
