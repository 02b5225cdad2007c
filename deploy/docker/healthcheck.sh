#!/bin/bash
# Checks whether the daemon in this container is ready. For HEALTHCHECK; needs only bash.
set -eu
exec 3<>"/dev/tcp/127.0.0.1/${ATEDM_LISTEN##*:}"
printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3
read -r -t 5 _ status _ <&3
[ "$status" = 200 ]
