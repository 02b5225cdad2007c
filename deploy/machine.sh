# A Debian machine of its own to try things in, for scripts to source: debootstrapped, a copy for each use, booted with
# systemd in systemd-nspawn. Where anything is missing for that, machine_need ends the script with status 77.
#
# The first use makes /var/tmp/atedm-machine, some 300 MB, and keeps it; the mirror is the one in /etc/apt.

machine_base=${ATEDM_MACHINE:-/var/tmp/atedm-machine}

machine_need() {
    if [ "$(id -u)" != 0 ]; then
        echo "skipped: a machine is made by root"
        exit 77
    fi
    for program in debootstrap systemd-nspawn nsenter dpkg-deb; do
        command -v "$program" >/dev/null 2>&1 && continue
        echo "skipped: there is no $program (Debian: apt-get install debootstrap systemd-container)"
        exit 77
    done
}

# Debian's main archive as this machine has it, in either of apt's formats.
machine_mirror() {
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
        sed -n -e 's/^URIs: *\([^ ]*\).*/\1/p' -e 's/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\) .*/\2/p' |
        grep '/debian/*$' | head -n 1
}

# machine_make PACKAGE.deb...: a new machine in $machine_root, without the packages but with what they depend on.
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
    echo "== what the packages depend on"
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

machine_chroot() { # COMMAND...: in the machine while it is not booted
    chroot "$machine_root" "$@"
}

# Starts systemd in the machine, which has a loopback device of its own and no other network.
machine_boot() {
    how='--private-network --console=pipe --link-journal=no'
    # With no systemd outside there is nobody to register with, nor to get a scope from.
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

machine() { # COMMAND...: in the machine while it runs
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

# ---- for what is tried: each check is counted, and says itself what is wrong

machine_passed=0
machine_failed=0

check() { # WHAT COMMAND...: has to succeed
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

check_is() { # WHAT EXPECTED GOT
    [ "$2" = "$3" ] || echo "     expected \"$2\", got \"$3\""
    check "$1" [ "$2" = "$3" ]
}

within() { # SECONDS COMMAND...: tries again and again
    left=$1
    shift
    while ! "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || return 1
        sleep 1
    done
}

# Ends with the sum, and with what the service said where something is wrong.
machine_report() {
    if [ "$machine_failed" != 0 ]; then
        echo "== what the machine says"
        machine journalctl --no-pager -u atedmd 2>/dev/null | tail -n 60
    fi
    echo "$machine_passed passed, $machine_failed failed"
    [ "$machine_failed" = 0 ]
}

# ---- the service

unit() { # PROPERTY: as systemctl shows it
    machine systemctl show --value -p "$1" atedmd
}

fetch() { # PATH [CURL OPTION...]: the answer's body
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

# A request of STEPS steps; further arguments are curl's.
generate() {
    steps=$1
    shift
    fetch /generate -H 'Content-Type: application/json' \
        -d "{\"prompt\": \"a red circle on a white background\", \"seed\": 1, \"steps\": $steps}" "$@"
}

# Sends a job and tells its id.
submit() {
    generate "$1" -H 'Prefer: respond-async' | sed -n 's/.*"id": *"\([0-9a-f]*\)".*/\1/p'
}

job_is() { # ID STATE
    fetch "/jobs/$1" | grep -q "\"state\": *\"$2\""
}
