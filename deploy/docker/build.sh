#!/bin/sh
# Inside a Dockerfile's first stage, behind install-deps.sh: builds the working directory and installs below /out; /out/packages has
# the Debian packages whose libraries the programs are linked with.
#
# usage: deploy/docker/build.sh [MESON_OPTION...]
set -eu

meson setup /build --prefix=/usr --buildtype=release -Dtests=false "$@"
ninja -C /build
DESTDIR=/out meson install -C /build --no-rebuild --strip
install -m 755 deploy/docker/healthcheck.sh /out/usr/bin/atedmd-healthcheck

# Which package a library is of: with and without the /usr that merged folders add.
libraries=$(find /out -type f -perm -u+x -exec ldd {} + 2>/dev/null | sed -n 's/.*=> \(\/[^ ]*\).*/\1/p' | sort -u)
for library in $libraries; do
    case $library in
    /usr/local/*) ;; # of the base image, which has it at run time too
    *) dpkg-query -S "$library" 2>/dev/null || dpkg-query -S "${library#/usr}" || dpkg-query -S "/usr$library" ;;
    esac
done | cut -d: -f1 | sort -u >/out/packages
[ -s /out/packages ]
