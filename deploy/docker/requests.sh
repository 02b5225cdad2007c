# The requests that try.sh here and in ../kubernetes send to a daemon. They source this file, and set `port` (the daemon's),
# `folder` (for files) and `fail` (a function that ends the script).

is_png() { head -c 8 | od -An -c | grep -q 'P   N   G'; }

make_picture() {
    curl -sf "http://127.0.0.1:$port/generate" -H 'Content-Type: application/json' -H 'Accept: image/png' -o "$folder/picture.png" \
        -d '{"prompt": "a small red star left of a big blue circle on a white background", "guidance_scale": 4, "seed": 1, "steps": 20}' ||
        fail "no picture"
    is_png <"$folder/picture.png" || fail "the answer is not a PNG"
    echo "picture: $(stat -c %s "$folder/picture.png") bytes"
}

# Submits a job, and sets `job` to its id.
start_job() {
    job=$(curl -sf "http://127.0.0.1:$port/generate" -H 'Content-Type: application/json' -H 'Prefer: respond-async' \
        -d '{"prompt": "a red circle", "steps": 20, "guidance_scale": 4}' | sed 's/.*"id":"\([0-9a-f]*\)".*/\1/')
}

# Waits for this job in the daemon that was started after the one to which it was submitted.
await_job() {
    for _ in $(seq 300); do
        curl -s "http://127.0.0.1:$port/jobs/$job" | grep -q '"state":"done"' && break
        sleep 0.2
    done
    curl -sf "http://127.0.0.1:$port/jobs/$job/images/0" | is_png || fail "the job is missing after a restart"
    echo "job $job: done, and the next daemon has it"
}
