#!/bin/sh
# Builds the image of Dockerfile.cpu with buildah, on a base image made by debootstrap. Runs it with podman as compose.yaml
# would: as its own user, without capabilities, with a read-only root. Checks that it is ready within 3 s, makes a picture, is
# healthy, keeps jobs in its volume, and ends properly. Prints its size and packages. Needs root and Debian; takes some minutes.
# Skipped (77) if a program is missing: apt-get install buildah podman runc debootstrap curl
#
# usage: deploy/docker/try.sh [FOLDER]    keeps the base and the images in FOLDER for the next run (some GB)
set -eu

cd "$(dirname "$0")/../.."
for program in buildah podman runc debootstrap curl; do
    command -v "$program" >/dev/null || { echo "not installed: $program"; exit 77; }
done
[ "$(id -u)" = 0 ] || { echo "needs root"; exit 77; }

port=18099
ready_s=3
folder=${1:-$(mktemp -d)}
mkdir -p "$folder/volume"
# Works whatever the kernel allows: needs neither overlay file systems nor namespaces for networks or users.
storage="--root $folder/storage --runroot $folder/run --storage-driver vfs"
podman="podman $storage --runtime runc"
container=atedmd-try-$$

finish() {
    $podman rm --force --time 5 "$container" >/dev/null 2>&1 || true
    [ -n "${1:-}" ] || rm -rf "$folder"
}
trap 'finish "${1:-}"' EXIT

fail() {
    echo "FAILED: $*" >&2
    $podman logs "$container" >&2 2>/dev/null || true
    exit 1
}

. deploy/docker/requests.sh

# ---- the base image: Debian, from the mirror that this machine uses

codename=bookworm
if ! $podman image exists "localhost/debian:$codename"; then
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' |
        awk -v codename="$codename" '$2 == codename { print $1; exit }')
    [ -d "$folder/base" ] || debootstrap --variant=minbase "$codename" "$folder/base.new" "$mirror" >"$folder/debootstrap.log"
    [ -d "$folder/base" ] || mv "$folder/base.new" "$folder/base"
    # Debian's own images have this too: dpkg need not wait for the disk.
    echo force-unsafe-io >"$folder/base/etc/dpkg/dpkg.cfg.d/docker-apt-speedup"
    rm -rf "$folder"/base/var/cache/apt/archives/*.deb "$folder"/base/var/lib/apt/lists/*
    tar -C "$folder/base" -c . | $podman import - "localhost/debian:$codename"
fi

# ---- build, in format docker, because OCI's format has no health check

buildah $storage bud --format docker --isolation chroot --network host ${1:+--layers} \
    --build-arg "BASE=localhost/debian:$codename" -f deploy/docker/Dockerfile.cpu -t localhost/atedmd:cpu .

bytes() { $podman image inspect --format '{{.Size}}' "$1"; }
echo "size: $(($(bytes localhost/atedmd:cpu) / 1000000)) MB, of that $(($(bytes "localhost/debian:$codename") / 1000000)) MB of the base"
[ "$($podman image inspect --format '{{.Config.User}}' localhost/atedmd:cpu)" = 10001:10001 ] || fail "user"
$podman image inspect --format '{{.HealthCheck}}' localhost/atedmd:cpu | grep -q atedmd-healthcheck || fail "no health check"

# ---- run

# podman's default limits may be higher than this machine allows.
limits="--ulimit nofile=$(ulimit -Hn):$(ulimit -Hn) --ulimit nproc=20000:20000"
start() {
    $podman run --detach --name "$container" --network host $limits --read-only --read-only-tmpfs=false --cap-drop all \
        --security-opt no-new-privileges -e ATEDM_LISTEN="127.0.0.1:$port" -v "$folder/volume:/var/lib/atedmd" \
        localhost/atedmd:cpu >/dev/null
}
now() { date +%s.%N; }

chown 10001:10001 "$folder/volume"
begin=$(now)
start
# The age of the daemon's process gives the time of its start without podman's own work.
pid=$($podman inspect --format '{{.State.Pid}}' "$container")
tries=0
until curl -sf "http://127.0.0.1:$port/readyz" >/dev/null; do
    kill -0 "$pid" 2>/dev/null || fail "the daemon ended"
    tries=$((tries + 1))
    [ "$tries" -lt 1000 ] || fail "not ready"
    sleep 0.05
done
end=$(now)
ticks=$(awk '{ print $22 }' "/proc/$pid/stat")
took=$(awk -v ticks="$ticks" -v hz="$(getconf CLK_TCK)" '{ printf "%.2f", $1 - ticks / hz }' /proc/uptime)
echo "ready: $took s after the process' start, $(awk "BEGIN { printf \"%.2f\", $end - $begin }") s after podman's"
awk "BEGIN { exit !($took < $ready_s) }" || fail "ready only after $took s"

make_picture

inside() { $podman exec "$container" "$@"; }
inside atedmd-healthcheck || fail "not healthy"
$podman healthcheck run "$container" || fail "podman does not find it healthy"
[ "$(inside id -u)" = 10001 ] || fail "runs as $(inside id -u)"
inside grep -q '^CapEff:.0*$' /proc/1/status || fail "has capabilities"
for place in /x /etc/x /usr/x /tmp/x /var/x; do
    inside sh -c ": >$place" 2>/dev/null && fail "$place can be written"
done
inside sh -c ': >/var/lib/atedmd/x && rm /var/lib/atedmd/x' || fail "the volume cannot be written"
for program in cc gcc ninja meson python3 pkg-config git; do
    inside sh -c "command -v $program" >/dev/null && fail "$program is in the image"
done
[ "$(inside sh -c 'find / -xdev \( -name "*.h" -o -name "*.a" -o -name "*.pc" -o -name "*.c" \) -not -path "/proc/*" -not -path "/usr/share/doc/*" 2>/dev/null | wc -l')" = 0 ] ||
    fail "files of a build are in the image"
[ -z "$(inside sh -c 'ls -d /src /build /out /tmp/packages 2>/dev/null')" ] || fail "the build's folders are in the image"

start_job
$podman stop --time 60 "$container" >/dev/null
[ "$($podman inspect --format '{{.State.ExitCode}}' "$container")" = 0 ] || fail "exit status of the drain"
$podman rm "$container" >/dev/null
start
await_job
echo "packages beyond the base:"
inside dpkg-query -W -f '${Package} ${Version} ${Installed-Size}\n' | sort >"$folder/packages"
chroot "$folder/base" dpkg-query -W -f '${Package} ${Version} ${Installed-Size}\n' | sort >"$folder/packages.base"
comm -23 "$folder/packages" "$folder/packages.base" | awk '{ printf "    %s %s, %.1f MB\n", $1, $2, $3 / 1000; sum += $3 } END { printf "    together %.0f MB\n", sum / 1000 }'
$podman stop --time 60 "$container" >/dev/null
echo "passed"
