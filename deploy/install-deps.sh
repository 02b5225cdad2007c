#!/bin/sh
# Installs missing packages with apt: those for building and running atedmd ("run"), also those for
# running every test ("check"), also those for measuring the demo model's quality ("quality"). If no
# package is missing it does nothing, and needs no rights.
#
# "package": those for building the Debian packages. "machine": also those for trying these packages
# in a machine of their own.
#
# usage: deploy/install-deps.sh [run|check|quality|package|machine]
set -eu

# package            minimum  what shows that it is installed: a program, a pkg-config module, a header, a file,
#                             or a module of Debian's python3 (which need not be the first python3 on PATH)
run_list='
build-essential      12.9     program cc
make                 4.3      program make
pkg-config           0.29     program pkg-config
meson                1.0.0    program meson
ninja-build          1.10     program ninja
curl                 7.74     program curl
libcurl4-openssl-dev 7.85     module  libcurl
libgnutls28-dev      3.7      module  gnutls
libjansson-dev       2.14     module  jansson
libmicrohttpd-dev    0.9.75   module  libmicrohttpd
libpng-dev           1.6      module  libpng
libsqlite3-dev       3.40     module  sqlite3
libutf8proc-dev      2.6      module  libutf8proc
libssl-dev           3.0      module  libcrypto
libuv1-dev           1.44     module  libuv
libdnnl-dev          2.6      header  oneapi/dnnl/dnnl.h
'
check_list='
python3              3.9      program python3
ccache               4.7      program ccache
libcriterion-dev     2.4      module  criterion
clang-format-14      14       program clang-format-14
clang-tidy-14        14       program clang-tidy-14
libomp-14-dev        14       file    /usr/lib/llvm-14/lib/libomp.so
nginx-light          1.18     file    /usr/sbin/nginx
openssl              3.0      program openssl
python3-numpy        1.24     python  numpy
python3-pil          9.4      python  PIL
python3-jsonschema   4.10     python  jsonschema
python3-kubernetes   22.6     python  kubernetes
systemd              252      program systemd-analyze
mandoc               1.14     program mandoc
prometheus           2.42     program promtool
'
package_list='
debhelper            13       program dh
dpkg-dev             1.21     program dpkg-buildpackage
'
machine_list='
debootstrap          1.0      program debootstrap
systemd-container    252      program systemd-nspawn
'
quality_list='
python3-matplotlib   3.6      python  matplotlib
'

case "${1:-run}" in
run) list=$run_list ;;
check) list="$run_list$check_list" ;;
quality) list="$run_list$check_list$quality_list" ;;
package) list="$run_list$package_list" ;;
machine) list="$run_list$package_list$machine_list" ;;
*)
    echo "usage: $0 [run|check|quality|package|machine]" >&2
    exit 2
    ;;
esac

have() { # KIND THING MINIMUM: whether it is installed; only a pkg-config module shows its version
    case "$1" in
    program) command -v "$2" >/dev/null 2>&1 ;;
    module) pkg-config --exists "$2 >= $3" >/dev/null 2>&1 ;;
    header) echo "#include <$2>" | cc -E -x c - >/dev/null 2>&1 ;;
    file) [ -e "$2" ] ;;
    python) /usr/bin/python3 -c "import $2" >/dev/null 2>&1 ;;
    esac
}

# Fills `missing` (package names) and `missing_text` (with versions, for people).
find_missing() {
    missing=''
    missing_text=''
    while read -r package minimum kind thing; do
        [ -n "$package" ] || continue
        have "$kind" "$thing" "$minimum" && continue
        missing="$missing $package"
        missing_text="$missing_text
    $package >= $minimum ($kind $thing)"
    done <<EOF
$list
EOF
}

find_missing
[ -n "$missing" ] || exit 0
echo "Missing:$missing"

command="apt-get update && apt-get install -y --no-install-recommends$missing"
if ! command -v apt-get >/dev/null 2>&1; then
    cat >&2 <<EOF
This machine has no apt-get. Install these in another way (the names are Debian's packages):
$missing_text

Then run the same make command again.
EOF
    exit 1
fi

export DEBIAN_FRONTEND=noninteractive
if [ "$(id -u)" = 0 ]; then
    sh -c "$command"
elif command -v sudo >/dev/null 2>&1 && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
    echo "Installing with sudo."
    sudo sh -c "export DEBIAN_FRONTEND=noninteractive; $command"
else
    cat >&2 <<EOF
Installing needs root, and sudo is not available. Ask an administrator to run:

    $command

Then run the same make command again.
EOF
    exit 1
fi

find_missing
if [ -n "$missing" ]; then
    echo "Still missing, although apt-get succeeded (too old a version?):$missing_text" >&2
    exit 1
fi
