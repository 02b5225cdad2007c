# A Debian machine to try things in; scripts source this file. debootstrap makes the machine, each use gets a copy, and systemd
# boots in it under systemd-nspawn. If a program for this is missing, machine_need ends the script with status 77.
#
# The first use makes /var/tmp/atedm-machine, about 300 MB, and keeps it. The mirror is the one in /etc/apt.

machine_base=${ATEDM_MACHINE:-/var/tmp/atedm-machine}

machine_need() {
    if [ "$(id -u)" != 0 ]; then
        echo "skipped: only root can make a machine"
        exit 77
    fi
    for program in debootstrap systemd-nspawn nsenter dpkg-deb; do
        command -v "$program" >/dev/null 2>&1 && continue
        echo "skipped: $program is missing (Debian: apt-get install debootstrap systemd-container)"
        exit 77
    done
}

# Prints the mirror of Debian's main archive that this host uses; reads both of apt's formats.
machine_mirror() {
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
        sed -n -e 's/^URIs: *\([^ ]*\).*/\1/p' -e 's/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\) .*/\2/p' |
        grep '/debian/*$' | head -n 1
}

# machine_make PACKAGE.deb...: makes a new machine in $machine_root. It has the packages' dependencies, and the packages
# themselves in /opt, not installed.
machine_make() {
    if [ ! -e "$machine_base/.complete" ]; then
        echo "== debootstrap into $machine_base"
        rm -rf "$machine_base"
        debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,ca-certificates,curl \
            bookworm "$machine_base" "$(machine_mirror)" >"$machine_base.log" 2>&1 || {
            tail "$machine_base.log"
            return 1
        }
        : >"$machine_base/etc/machine-id" # each copy makes its own
        touch "$machine_base/.complete"
    fi
    machine_folder=$(mktemp -d /var/tmp/atedm-machine-copy.XXXXXX)
    machine_root=$machine_folder/root
    machine_main=''
    trap machine_remove EXIT
    trap 'exit 1' INT TERM HUP
    mkdir "$machine_root" "$machine_folder/changes" "$machine_folder/work"
    mount -t overlay overlay "$machine_root" \
        -o "lowerdir=$machine_base,upperdir=$machine_folder/changes,workdir=$machine_folder/work"
    echo "== dependencies of the packages"
    depends=$(for package in "$@"; do dpkg-deb -f "$package" Depends; done | grep . | paste -sd,)
    cp /etc/resolv.conf "$machine_root/etc/resolv.conf"
    machine_chroot apt-get update -qq
    machine_chroot env DEBIAN_FRONTEND=noninteractive apt-get satisfy -y -qq --no-install-recommends "$depends" \
        >"$machine_folder/apt.log" 2>&1 || {
        tail "$machine_folder/apt.log"
        return 1
    }
    cp "$@" "$machine_root/opt/"
}

machine_chroot() { # COMMAND...: runs in the machine while it is not booted
    chroot "$machine_root" "$@"
}

# Boots systemd in the machine. Its only network is a loopback device of its own.
machine_boot() {
    how='--private-network --console=pipe --link-journal=no'
    # Without systemd on the host, nspawn can neither register the machine nor get a scope for it.
    [ -d /run/systemd/system ] || how="$how --register=no --keep-unit"
    # shellcheck disable=SC2086 # several words
    systemd-nspawn --quiet --directory="$machine_root" --machine="atedm-$$" --boot $how \
        </dev/null >"$machine_folder/console.log" 2>&1 &
    machine_nspawn=$!
    for _ in $(seq 120); do
        machine_main=$(pgrep -P "$machine_nspawn" | head -n 1)
        [ -n "$machine_main" ] && machine systemctl is-system-running --wait >/dev/null 2>&1 && return 0
        kill -0 "$machine_nspawn" 2>/dev/null || break
        sleep 1
    done
    echo "systemd does not start in the machine:"
    cat "$machine_folder/console.log"
    return 1
}

machine() { # COMMAND...: runs in the booted machine
    nsenter --target "$machine_main" --mount --uts --ipc --net --pid --cgroup --root --wd -- "$@"
}

machine_remove() {
    if [ -n "$machine_main" ]; then
        kill -s RTMIN+4 "$machine_main" 2>/dev/null || true # power off
        for _ in $(seq 60); do
            kill -0 "$machine_nspawn" 2>/dev/null || break
            sleep 0.5
        done
        kill -KILL "$machine_nspawn" 2>/dev/null || true
        wait "$machine_nspawn" 2>/dev/null || true
    fi
    umount "$machine_root" && rm -rf "$machine_folder"
}

# ---- checks: each is counted, and prints its result

machine_passed=0
machine_failed=0

check() { # WHAT COMMAND...: the command has to succeed
    what=$1
    shift
    if "$@"; then
        machine_passed=$((machine_passed + 1))
        echo "ok   $what"
    else
        machine_failed=$((machine_failed + 1))
        echo "FAIL $what"
    fi
}

check_is() { # WHAT EXPECTED GOT: both have to be equal
    [ "$2" = "$3" ] || echo "     expected \"$2\", got \"$3\""
    check "$1" [ "$2" = "$3" ]
}

within() { # SECONDS COMMAND...: tries the command every second until it succeeds
    left=$1
    shift
    while ! "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || return 1
        sleep 1
    done
}

# Prints the totals, and the service's journal if a check failed. Fails if a check failed.
machine_report() {
    if [ "$machine_failed" != 0 ]; then
        echo "== the service's journal"
        machine journalctl --no-pager -u atedmd 2>/dev/null | tail -n 60
    fi
    echo "$machine_passed passed, $machine_failed failed"
    [ "$machine_failed" = 0 ]
}

# ---- the service

unit() { # PROPERTY: prints its value, as systemctl shows it
    machine systemctl show --value -p "$1" atedmd
}

fetch() { # PATH [CURL OPTION...]: prints the answer's body
    path=$1
    shift
    machine curl -s --max-time 300 "http://127.0.0.1:8080$path" "$@"
}

fetch_status() {
    fetch "$1" -o /dev/null -w '%{http_code}'
}

is_ready() {
    [ "$(fetch_status /readyz)" = 200 ]
}

# generate STEPS [CURL OPTION...]: sends a request with this many steps.
generate() {
    steps=$1
    shift
    fetch /generate -H 'Content-Type: application/json' \
        -d "{\"prompt\": \"a red circle on a white background\", \"seed\": 1, \"steps\": $steps}" "$@"
}

# submit STEPS: submits a job and prints its id.
submit() {
    generate "$1" -H 'Prefer: respond-async' | sed -n 's/.*"id": *"\([0-9a-f]*\)".*/\1/p'
}

job_is() { # ID STATE: whether the job is in this state
    fetch "/jobs/$1" | grep -q "\"state\": *\"$2\""
}
