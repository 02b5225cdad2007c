#!/bin/sh
# Prints the recording rules and alerts of deploy/prometheus/rules as objects for the Prometheus operator:
#
#   deploy/kubernetes/monitoring/rules.sh | kubectl apply -f -
set -eu
cd "$(dirname "$0")/../../prometheus/rules"
for file in *.yml; do
    cat <<END
---
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: atedmd-${file%.yml}
  labels: {app.kubernetes.io/name: atedmd}
spec:
END
    sed 's/^/  /' "$file"
done
