#!/bin/sh
# Builds the Debian packages of this tree into build/deb. Debian requires its files in debian/ at the top of the tree, and a
# build would leave other files there too. So this script builds a copy of the tree, with this folder as its debian/.
#
# usage: deploy/debian/build.sh [cuda]
#   cuda: also build the package for NVIDIA GPUs (needs nvcc; takes minutes)
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
    echo "deploy/debian/changelog has version $version, meson.build has another one" >&2
    exit 1
fi
tree=$out/atedmd-$version
rm -rf "$out"
mkdir -p "$tree"
cd "$root"
# Copies the files as they are now, without those that git ignores, such as build folders.
git ls-files -z --cached --others --exclude-standard -- . ':!tests/golden/data' |
    tar --create --null --files-from=- | tar --extract --directory="$tree"
cp -r deploy/debian "$tree/debian"
cd "$tree"
DEB_BUILD_OPTIONS="parallel=$(nproc) noautodbgsym ${DEB_BUILD_OPTIONS:-}" \
    dpkg-buildpackage --build=binary --no-sign ${profiles:+--build-profiles=$profiles}
rm -rf "$tree"
ls -l "$out"/*.deb
