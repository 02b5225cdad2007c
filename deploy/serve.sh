#!/bin/sh
# Starts the daemon that `make serve` built, in the foreground. Once the daemon is ready, prints how
# to send it a request.
#
# usage: deploy/serve.sh DAEMON MODEL_DIR ADDRESS:PORT
set -eu

daemon=$1
model=$2
listen=$3

hint() {
    cat <<EOF

atedmd answers on http://$listen with the model $model. Try, in another terminal:

    curl -s http://$listen/generate -H 'Accept: image/png' -H 'Content-Type: application/json' \\
        -d '{"prompt": "a small red star left of a big blue circle on a white background",
             "steps": 20, "guidance_scale": 4, "seed": 1}' -o star.png

Ctrl-C stops the daemon after it has finished the requests that it is working on.

EOF
}

if curl -s -o /dev/null --max-time 2 "http://$listen/healthz"; then
    echo "Another server already answers on http://$listen. Stop it, or run: make serve LISTEN=127.0.0.1:8081" >&2
    exit 1
fi

# `exec` below turns this shell into the daemon, so for the waiting subshell $$ is the daemon's process id.
(
    while kill -0 $$ 2>/dev/null; do
        if curl -sf -o /dev/null --max-time 2 "http://$listen/readyz"; then
            hint
            break
        fi
        sleep 1
    done
) &

exec "$daemon" --model "$model" --listen "$listen"
