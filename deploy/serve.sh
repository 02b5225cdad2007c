#!/bin/sh
# Starts the daemon that `make serve` built, in the foreground, and says how to talk to it once it
# answers.
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

Ctrl-C stops the daemon, once it has finished what it is working on.

EOF
}

if curl -s -o /dev/null --max-time 2 "http://$listen/healthz"; then
    echo "Something answers on http://$listen already. Stop it, or: make serve LISTEN=127.0.0.1:8081" >&2
    exit 1
fi

# The shell becomes the daemon below, so $$ is the daemon's process id for the one that waits here.
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
