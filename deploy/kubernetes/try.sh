#!/bin/sh
# Runs the pod of base/ with podman, as kubectl renders it: with its image, user, limits, probes and volumes. Checks that it
# becomes ready and makes a picture, and that the next pod continues a job that the first one left. Needs root. Run
# deploy/docker/try.sh FOLDER before, which leaves the image in FOLDER. Skipped (77) if a program is missing: apt-get install
# podman runc catatonit python3-kubernetes, and kubectl 1.21 or later.
#
# usage: deploy/kubernetes/try.sh FOLDER
set -eu

cd "$(dirname "$0")"
folder=${1:?give the folder of deploy/docker/try.sh}
for program in podman runc catatonit kubectl; do
    command -v "$program" >/dev/null || { echo "not installed: $program"; exit 77; }
done
[ "$(id -u)" = 0 ] || { echo "needs root"; exit 77; }

port=8080
podman="podman --root $folder/storage --runroot $folder/run --storage-driver vfs --runtime runc"
pod=$folder/pod.yaml
# podman's default limits may be higher than this machine allows.
cat >"$folder/containers.conf" <<END
[containers]
default_ulimits = ["nofile=$(ulimit -Hn):$(ulimit -Hn)", "nproc=20000:20000"]
END
export CONTAINERS_CONF=$folder/containers.conf

finish() {
    $podman kube down "$pod" >/dev/null 2>&1 || true
    $podman volume rm --force --all >/dev/null 2>&1 || true
}
trap finish EXIT

fail() {
    echo "FAILED: $*" >&2
    $podman logs atedmd-0-atedmd >&2 2>/dev/null || true
    exit 1
}

. ../docker/requests.sh

# Makes from the stateful set what Kubernetes would make: its first pod, with its claim. The pod uses this machine's network.
kubectl kustomize base >"$folder/base.yaml"
/usr/bin/python3 - "$folder/base.yaml" >"$pod" <<'END'
import sys
import yaml
documents = list(yaml.safe_load_all(open(sys.argv[1], encoding="utf-8")))
found = {document["kind"]: document for document in documents}
stateful_set = found["StatefulSet"]["spec"]
claim, = stateful_set["volumeClaimTemplates"]  # podman makes a volume for a claim
spec = stateful_set["template"]["spec"]
name = claim["metadata"]["name"]
spec["volumes"].append({"name": name, "persistentVolumeClaim": {"claimName": f"{name}-atedmd-0"}})
spec["hostNetwork"] = True
container, = spec["containers"]
container["image"] = "localhost/" + container["image"]
port, = container.pop("ports")  # on the host's network podman publishes no ports, and it knows ports only by number
for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
    container[probe]["httpGet"]["port"] = port["containerPort"]
yaml.safe_dump_all([found["ConfigMap"],
                    {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "atedmd-0"}, "spec": spec}], sys.stdout)
END

start() {
    $podman kube play "$pod" >/dev/null
    for _ in $(seq 100); do
        curl -sf "http://127.0.0.1:$port/readyz" >/dev/null && return
        sleep 0.1
    done
    fail "not ready"
}
inside() { $podman exec atedmd-0-atedmd "$@"; }

start
make_picture
[ "$(inside id -u)" = 10001 ] || fail "runs as $(inside id -u)"
inside grep -q '^CapEff:.0*$' /proc/1/status || fail "has capabilities"
inside grep -q '^Seccomp:.2$' /proc/1/status || fail "no seccomp filter"
inside sh -c ': >/etc/x' 2>/dev/null && fail "/etc can be written"
inside sh -c ': >/var/lib/atedmd/x && rm /var/lib/atedmd/x' || fail "the volume cannot be written"
inside cat /etc/atedm/atedmd.json | cmp - base/atedmd.json || fail "the configuration differs"
threads=$(inside sh -c 'cat /proc/[0-9]*/environ' | tr '\0' '\n' | grep OMP_NUM_THREADS) || fail "no threads"
echo "threads: $threads"

start_job
$podman kube down "$pod" >/dev/null # keeps volumes
start
await_job
echo "passed"
