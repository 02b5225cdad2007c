// Shared by the engine's own files; no other file includes it.
#ifndef ATEDM_ENGINE_PRIVATE_H
#define ATEDM_ENGINE_PRIVATE_H

#include "core/engine.h"
#include "core/preview.h"

// The class of all images of one size. Exists while the engine has requests of that size.
typedef struct atedm_engine_size {
    int64_t width, height;
    size_t jobs;
    double served; // FLOPs that the device has spent on the class
    size_t most;   // images that fit into one evaluation, as far as is known
    struct atedm_engine_size *next;
} atedm_engine_size;

typedef struct atedm_engine_job {
    uint64_t id;
    atedm_request request;
    atedm_generation *generation;
    atedm_engine_size *size;
    bool encoded;
    int stepped;  // steps that all images have done
    int pictures; // finished images; images are decoded in order
    atedm_engine_report report;
    struct atedm_engine_job *next; // in order of admission
} atedm_engine_job;

// The evaluation under way: which images it has, and the job of each.
typedef struct atedm_engine_evaluation {
    bool under_way;
    size_t n; // lanes, without those of jobs that have left since
    atedm_lane lanes[ATEDM_ENGINE_MAX_BATCH];
    atedm_engine_job *jobs[ATEDM_ENGINE_MAX_BATCH];
    double since; // time at which it was enqueued, s (atedm_clock_monotonic)
} atedm_engine_evaluation;

struct atedm_engine {
    atedm_engine_options options;
    atedm_engine_hooks hooks;
    const atedm_model *model;
    atedm_pipeline *pipeline;
    atedm_engine_job *jobs, **jobs_end;
    size_t n_jobs;
    atedm_engine_size *classes;
    size_t needed; // the most device bytes that the weights and the present jobs may need
    atedm_engine_job *encoding; // the job whose texts are being encoded; NULL: none
    double encoding_since;
    atedm_engine_job *decoding; // the job whose image `pictures` is being decoded; NULL: none
    uint8_t *rgb;               // [host] that image
    double decoding_since;      // when the device began to decode on its own, s; 0: it did not
    atedm_engine_evaluation evaluation;
    double evaluation_s; // duration of the last evaluation
    atedm_preview map;
    bool fitted, unfit; // `map` is valid; fitting it failed, and is not tried again for now
};

// Whether the image has no steps left.
bool atedm_engine_is_drawn(const atedm_engine_job *j, int image);

// Enqueues the next evaluation. False if no image has steps left. If the evaluation cannot begin,
// either the next call tries fewer images, or the job has failed.
bool atedm_engine_evaluation_begin(atedm_engine *e);
// Waits for the evaluation under way, if there is one, and reports it to the hooks.
void atedm_engine_evaluation_end(atedm_engine *e);
// Removes the job's lanes from the evaluation under way, after waiting for the device to finish it.
// The other lanes keep their step.
void atedm_engine_evaluation_leave(atedm_engine *e, const atedm_engine_job *j);

// Reports the failure to the hook and removes the job.
void atedm_engine_fail(atedm_engine *e, atedm_engine_job *j, atedm_status status,
                       const atedm_error *error);
// Frees the pipeline's spare memory if the memory limit has no room for it beside the weights and
// what the jobs may need.
void atedm_engine_limit_spare(atedm_engine *e);

#endif
