# What try.sh here and in ../kubernetes ask of a daemon; sourced. `port` is the daemon's, `folder` theirs; `fail` ends them.

is_png() { head -c 8 | od -An -c | grep -q 'P   N   G'; }

make_picture() {
    curl -sf "http://127.0.0.1:$port/generate" -H 'Content-Type: application/json' -H 'Accept: image/png' -o "$folder/picture.png" \
        -d '{"prompt": "a small red star left of a big blue circle on a white background", "guidance_scale": 4, "seed": 1, "steps": 20}' ||
        fail "no picture"
    is_png <"$folder/picture.png" || fail "what came is no PNG"
    echo "picture: $(stat -c %s "$folder/picture.png") bytes"
}

# Sets `job`.
start_job() {
    job=$(curl -sf "http://127.0.0.1:$port/generate" -H 'Content-Type: application/json' -H 'Prefer: respond-async' \
        -d '{"prompt": "a red circle", "steps": 20, "guidance_scale": 4}' | sed 's/.*"id":"\([0-9a-f]*\)".*/\1/')
}

# Of the daemon that came after the one that was asked.
await_job() {
    for _ in $(seq 300); do
        curl -s "http://127.0.0.1:$port/jobs/$job" | grep -q '"state":"done"' && break
        sleep 0.2
    done
    curl -sf "http://127.0.0.1:$port/jobs/$job/images/0" | is_png || fail "the job is not there after a restart"
    echo "job $job: done, also for the daemon after"
}
