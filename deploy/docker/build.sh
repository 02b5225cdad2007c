#!/bin/sh
# Runs in the first stage of a Dockerfile, after install-deps.sh. Builds the working directory and installs it below /out. Writes
# into /out/packages the names of the Debian packages whose libraries the programs are linked with.
#
# usage: deploy/docker/build.sh [MESON_OPTION...]
set -eu

meson setup /build --prefix=/usr --buildtype=release -Dtests=false "$@"
ninja -C /build
DESTDIR=/out meson install -C /build --no-rebuild --strip
install -m 755 deploy/docker/healthcheck.sh /out/usr/bin/atedmd-healthcheck

# Finds the package of each library. If /lib is merged into /usr/lib, dpkg may know the path only with or only without /usr.
libraries=$(find /out -type f -perm -u+x -exec ldd {} + 2>/dev/null | sed -n 's/.*=> \(\/[^ ]*\).*/\1/p' | sort -u)
for library in $libraries; do
    case $library in
    /usr/local/*) ;; # comes with the base image, and so is there at run time too
    *) dpkg-query -S "$library" 2>/dev/null || dpkg-query -S "${library#/usr}" || dpkg-query -S "/usr$library" ;;
    esac
done | cut -d: -f1 | sort -u >/out/packages
[ -s /out/packages ]
