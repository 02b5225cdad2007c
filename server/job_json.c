// Describes a job as JSON: see job_json.h.
#include "server/job_json.h"

#include "core/base/clock.h"

const char *atedm_job_state_name(const atedm_store_job *record, const atedm_live *live)
{
    if (live)
        return live->job && !live->job->seat ? "queued" : "running";
    switch (record->state) {
    case ATEDM_STORE_DONE:
        return "done";
    case ATEDM_STORE_FAILED:
        return "failed";
    case ATEDM_STORE_CANCELED:
        return "canceled";
    case ATEDM_STORE_PENDING:
        break;
    }
    return "queued"; // no worker will run it in this daemon: the next daemon will
}

json_t *atedm_job_progress_json(const atedm_job *job)
{
    if (!job->seat)
        return json_pack("{s:i, s:i, s:n}", "step", 0, "steps", job->request.steps, "images_per_s");
    double done = (double)job->steps_done / job->request.steps * job->request.num_images;
    double rate = done / (atedm_clock_monotonic() - job->handed_over);
    return json_pack("{s:i, s:i, s:o}", "step", job->steps_done, "steps", job->request.steps,
                     "images_per_s", job->steps_done ? json_real(rate) : json_null());
}

json_t *atedm_job_json(const atedm_store_job *record, const atedm_live *live)
{
    json_t *value =
        json_pack("{s:s, s:s, s:I}", "id", record->id, "state", atedm_job_state_name(record, live),
                  "created", (json_int_t)record->created);
    if (*record->owner)
        json_object_set_new(value, "owner", json_string(record->owner));
    if (live && live->job)
        json_object_set_new(value, "progress", atedm_job_progress_json(live->job));
    if (live)
        return value;
    if (record->ended)
        json_object_set_new(value, "ended", json_integer(record->ended));
    if (record->answer)
        json_object_set_new(value, record->state == ATEDM_STORE_DONE ? "result" : "error",
                            json_loads(record->answer, 0, NULL));
    return value;
}
