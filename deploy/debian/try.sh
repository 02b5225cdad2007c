#!/bin/sh
# Tries the packages that `make deb` has built in build/deb: install, upgrade while requests run, remove, purge. It runs in a
# Debian machine that deploy/machine.sh makes and boots. With "chroot" the machine is not booted, as during the installation
# of a machine or the build of an image; there, policy-rc.d forbids starting services.
#
# usage: deploy/debian/try.sh [chroot]      Status 77 if no machine can be made. Takes minutes; needs root.
set -eu

here=$(dirname "$0")
. "$here/../machine.sh"
machine_need
packages=$(ls "$here"/../../build/deb/atedmd_*.deb "$here"/../../build/deb/atedmd-model-demo_*.deb)
daemon_package=$(ls "$here"/../../build/deb/atedmd_*.deb)

# shellcheck disable=SC2086 # one word for each package
machine_make $packages
version=$(dpkg-deb -f "$daemon_package" Version)

# The same package again, with a later version and a changed default configuration.
dpkg-deb -R "$daemon_package" "$machine_folder/later"
sed -i "s/^Version: .*/Version: $version+later/" "$machine_folder/later/DEBIAN/control"
sed -i 's/"listen"/"queue_limit": 63,\n  "listen"/' "$machine_folder/later/etc/atedm/atedmd.json"
dpkg-deb -b "$machine_folder/later" "$machine_root/opt/later.deb" >/dev/null

install='export DEBIAN_FRONTEND=noninteractive; dpkg --force-confold -i'
installed='dpkg-query -W -f "\${Version} \${db:Status-Status}" atedmd'

# Prints every file of the machine, except those that dpkg, the journal and running services write.
list_files() {
    (cd "$machine_root" && find . -xdev \( -path ./proc -o -path ./sys -o -path ./dev -o -path ./run -o -path ./tmp \
        -o -path ./opt -o -path ./var/lib/dpkg -o -path ./var/log -o -path ./var/cache -o -path ./var/tmp \
        -o -path ./var/lib/systemd -o -path ./etc/systemd/system \) -prune -o -print) | sort
}

is_gone() { # PATH: whether the machine does not have it
    [ ! -e "$machine_root$1" ]
}

if [ "${1:-}" = chroot ]; then
    machine() {
        machine_chroot "$@"
    }
    mount -t proc proc "$machine_root/proc"
    trap 'umount "$machine_root/proc"; machine_remove' EXIT
    machine sh -c 'printf "#!/bin/sh\nexit 101\n" >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d'
else
    machine_boot
    # Other programs may use the processors of this machine: threads that wait must not spin.
    machine sh -c 'mkdir -p /run/systemd/system/atedmd.service.d
        printf "[Service]\nEnvironment=OMP_WAIT_POLICY=passive\n" >/run/systemd/system/atedmd.service.d/try.conf'
fi
list_files >"$machine_folder/before"

echo "== install"
check 'it installs' machine sh -c "$install /opt/atedmd*.deb >/opt/dpkg.log 2>&1"
check_is 'what is installed' "$version installed" "$(machine sh -c "$installed")"
list_files >"$machine_folder/during" # shows that the list would find files that are left in the end
check 'its files are seen' grep -qx ./usr/sbin/atedmd "$machine_folder/during"
check_is 'there is a user' '/var/lib/atedmd /usr/sbin/nologin' \
    "$(machine getent passwd atedm | cut -d: -f6,7 | tr : ' ')"
check 'the service is enabled' machine test -L /etc/systemd/system/multi-user.target.wants/atedmd.service
check_is 'the programs' "atedmd $version atedm $version" "$(machine sh -c 'atedmd --version; atedm --version' | paste -sd' ')"
check 'manual pages' machine test -s /usr/share/man/man8/atedmd.8.gz -a -s /usr/share/man/man1/atedm.1.gz
machine sed -i 's/"api_keys": ""/"max_active": 1/' /etc/atedm/atedmd.json
if [ "${1:-}" != chroot ]; then
    check 'the service runs' within 120 is_ready
    check 'it takes its new configuration' machine systemctl restart atedmd
    main=$(unit MainPID)

    echo "== upgrade while it works"
    generate 30 -o /dev/null -w '%{http_code}' >"$machine_folder/answer" &
    client=$!
    check 'a request runs' within 60 sh -c "nsenter -t $machine_main -n curl -s http://127.0.0.1:8080/metrics |
        grep -q '^atedm_active_requests [1-9]'"
    waiting=$(submit 2)
    check 'a job waits' job_is "$waiting" queued
else
    echo "== upgrade"
fi
machine sh -c 'mkdir -p /var/lib/atedmd && touch /var/lib/atedmd/kept && echo "{\"keys\": []}" >/etc/atedm/keys.json'
check 'it upgrades' machine sh -c "$install /opt/later.deb >/opt/dpkg.log 2>&1"
check_is 'what is installed' "$version+later installed" "$(machine sh -c "$installed")"
check 'the configuration is still the operator'"'"'s' machine grep -q max_active /etc/atedm/atedmd.json
check 'nobody but root and the daemon reads the keys' \
    [ "$(machine stat -c '%a %U %G' /etc/atedm/keys.json)" = '640 root atedm' ]
if [ "${1:-}" != chroot ]; then
    wait "$client" || true
    check_is 'the request that ran was answered' 200 "$(cat "$machine_folder/answer")"
    check 'another daemon runs' within 120 is_ready
    check 'it is another process' [ "$main" != "$(unit MainPID)" ]
    check 'the job is done' within 300 job_is "$waiting" 'done'
fi

echo "== remove"
check 'it goes' machine sh -c 'dpkg -r atedmd >/opt/dpkg.log 2>&1'
check 'its programs are gone' is_gone /usr/sbin/atedmd
check 'jobs are kept' machine test -e /var/lib/atedmd/kept
check 'the configuration, too' machine test -e /etc/atedm/atedmd.json
[ "${1:-}" = chroot ] || check_is 'nothing runs' '' "$(machine sh -c 'cat /proc/[0-9]*/comm' | grep atedm || true)"
check 'it comes back' machine sh -c "$install /opt/later.deb >/opt/dpkg.log 2>&1"
check 'with its configuration' machine grep -q max_active /etc/atedm/atedmd.json

echo "== purge"
check 'it is purged' machine sh -c 'dpkg -P atedmd atedmd-model-demo >/opt/dpkg.log 2>&1'
list_files >"$machine_folder/after"
# The user stays, so passwd, group and the like may have new backups.
check_is 'nothing is left' '' \
    "$(diff "$machine_folder/before" "$machine_folder/after" | grep '^[<>]' | grep -v '/etc/\(passwd\|group\|shadow\|gshadow\)-$' | paste -sd' ')"
check 'no link to the service' machine sh -c '! find /etc/systemd -name "atedmd*" | grep -q .'

machine_report
