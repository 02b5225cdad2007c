#!/bin/sh
# Builds the Debian packages of this tree into build/deb. Debian wants its files in debian/ at the top, and nothing
# else there is made by a build: so a copy of the tree is built, with this folder as its debian/.
#
# usage: deploy/debian/build.sh [cuda]
#   cuda: the package for NVIDIA GPUs, too (needs nvcc; takes minutes)
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
out=$root/build/deb
profiles=''
case "${1:-}" in
'') ;;
cuda) profiles=pkg.atedmd.cuda ;;
*)
    echo "usage: $0 [cuda]" >&2
    exit 2
    ;;
esac

version=$(dpkg-parsechangelog -l "$root/deploy/debian/changelog" -S Version)
if ! grep -q "^  version: '$version'," "$root/meson.build"; then
    echo "deploy/debian/changelog says $version, meson.build does not" >&2
    exit 1
fi
tree=$out/atedmd-$version
rm -rf "$out"
mkdir -p "$tree"
cd "$root"
# What git knows, as it stands here, and no build folder.
git ls-files -z --cached --others --exclude-standard -- . ':!tests/golden/data' |
    tar --create --null --files-from=- | tar --extract --directory="$tree"
cp -r deploy/debian "$tree/debian"
cd "$tree"
DEB_BUILD_OPTIONS="parallel=$(nproc) noautodbgsym ${DEB_BUILD_OPTIONS:-}" \
    dpkg-buildpackage --build=binary --no-sign ${profiles:+--build-profiles=$profiles}
rm -rf "$tree"
ls -l "$out"/*.deb
