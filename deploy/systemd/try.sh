#!/bin/sh
# Tries atedmd.service under a real systemd: start, reload, drain, watchdog, crashes. It runs in a Debian machine that
# deploy/machine.sh makes and boots, with the packages that `make deb` has built in build/deb.
#
# usage: deploy/systemd/try.sh      Status 77 if no machine can be made. Takes some minutes; needs root.
set -eu

here=$(dirname "$0")
. "$here/../machine.sh"
machine_need
packages=$(ls "$here"/../../build/deb/atedmd_*.deb "$here"/../../build/deb/atedmd-model-demo_*.deb)

# shellcheck disable=SC2086 # one word for each package
machine_make $packages
# Installation does not start the service: this script starts it, with options that shorten the waits.
machine_chroot sh -c 'printf "#!/bin/sh\nexit 101\n" >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d'
machine_chroot sh -c 'dpkg -i /opt/*.deb' >"$machine_folder/dpkg.log" 2>&1
machine_chroot systemctl disable --quiet atedmd
cat >"$machine_root/etc/atedm/atedmd.json" <<'CONFIG'
{"model": "/usr/share/atedmd/models/demo", "max_active": 1, "queue_limit": 5}
CONFIG
mkdir "$machine_root/etc/systemd/system/atedmd.service.d"
# TimeoutStopSec is shorter than the drain below, so the daemon has to ask for more time.
cat >"$machine_root/etc/systemd/system/atedmd.service.d/try.conf" <<'DROPIN'
[Service]
TimeoutStopSec=1
WatchdogSec=4
TimeoutAbortSec=2
RestartSec=0.5
# Other programs may use the processors of this machine: threads that wait must not spin.
Environment=OMP_WAIT_POLICY=passive
DROPIN
machine_boot
echo "== systemd $(machine systemctl --version | sed -n '1s/systemd \([0-9]*\).*/\1/p') is up"

configure() { # JSON: writes the configuration
    echo "$1" >"$machine_root/etc/atedm/atedmd.json"
}

said() { # TEXT: whether the service's journal has it
    machine journalctl --no-pager -q -u atedmd | grep -q -- "$1"
}

echo "== start"
check 'it starts' machine systemctl start atedmd
check_is 'ready is ready: the model is there' 200 "$(fetch_status /readyz)"
check_is 'its state' 'active running' "$(unit ActiveState) $(unit SubState)"
check_is 'its line' '1 of 1 workers up, 0 requests running, 0 waiting' "$(unit StatusText)"
main=$(unit MainPID)
check_is 'its user' atedm "$(machine stat -c %U "/proc/$main")"
check_is 'no capabilities' 0000000000000000 "$(machine sed -n 's/^CapEff:\t//p' "/proc/$main/status")"
check_is 'the state folder is nobody else'"'"'s' '700 atedm' "$(machine stat -c '%a %U' /var/lib/atedmd)"
check 'it makes a picture' sh -c "[ '$(generate 4 -H 'Accept: image/png' | head -c 4 | od -An -tx1)' = ' 89 50 4e 47' ]"
sleep 6
check_is 'idle for longer than the watchdog waits: the same process' "$main" "$(unit MainPID)"

echo "== reload"
configure '{"model": "/usr/share/atedmd/models/demo", "max_active": 1, "queue_limit": 7}'
check 'it reloads' machine systemctl reload atedmd
check 'the new option is in force' within 10 said 'queue_limit="5 -> 7"'
check_is 'the process is the same' "$main" "$(unit MainPID)"
configure '{"queue_limi": 7}'
check 'a wrong configuration' machine systemctl reload atedmd
check 'is told of' within 10 said 'not reloaded'
check_is 'and changes nothing' "active $main 200" "$(unit ActiveState) $(unit MainPID) $(fetch_status /readyz)"

echo "== drain"
configure '{"model": "/usr/share/atedmd/models/demo", "max_active": 1}'
running=$(submit 30)
waiting=$(submit 3)
check 'a job runs' within 60 job_is "$running" running
began=$(date +%s)
check 'it stops' machine systemctl stop atedmd
echo "     after $(($(date +%s) - began)) s"
check 'TimeoutStopSec alone would not have been enough' [ $(($(date +%s) - began)) -gt 1 ]
check_is 'in order' 'success inactive' "$(unit Result) $(unit ActiveState)"
check 'it starts again' machine systemctl start atedmd
check 'the job that ran was finished' job_is "$running" 'done'
check 'the job that waited is done by the next daemon' within 300 job_is "$waiting" 'done'

echo "== watchdog"
main=$(unit MainPID)
before=$(unit NRestarts)
job=$(submit 20)
check 'a job runs' within 60 job_is "$job" running
machine sh -c "kill -STOP $main"
check 'a daemon that stands still is killed' within 30 said 'Watchdog timeout'
check 'another is started' within 120 is_ready
check_is 'once' $((before + 1)) "$(unit NRestarts)"
check 'it is another process' [ "$main" != "$(unit MainPID)" ]
check 'the job is done all the same' within 300 job_is "$job" 'done'

echo "== crashes"
main=$(unit MainPID)
before=$(unit NRestarts)
job=$(submit 20)
check 'a job runs' within 60 job_is "$job" running
machine sh -c "kill -SEGV $main"
check 'a daemon that crashes is started again' within 120 is_ready
check_is 'once more' $((before + 1)) "$(unit NRestarts)"
check 'its job is done' within 300 job_is "$job" 'done'
main=$(unit MainPID)
job=$(submit 20)
check 'a job runs' within 60 job_is "$job" running
machine sh -c 'kill -KILL $(cat /proc/'"$main"'/task/*/children)'
check 'a worker that is killed is the daemon'"'"'s business' within 60 said 'worker lost'
check 'its job is done' within 300 job_is "$job" 'done'
check_is 'the daemon went on' "$main $((before + 1))" "$(unit MainPID) $(unit NRestarts)"
configure '{"queue_limi": 7}'
machine systemctl restart atedmd 2>/dev/null || true
sleep 3
check_is 'a wrong configuration is not tried again' 'failed 2' "$(unit ActiveState) $(unit ExecMainStatus)"

machine_report
