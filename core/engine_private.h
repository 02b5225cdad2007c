// What the files of the engine share; nobody else includes it.
#ifndef ATEDM_ENGINE_PRIVATE_H
#define ATEDM_ENGINE_PRIVATE_H

#include "core/engine.h"
#include "core/preview.h"

// What the images of one size had of the device. Exists while requests of that size do.
typedef struct atedm_engine_size {
    int64_t width, height;
    size_t jobs;
    double served; // FLOPs
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
    int pictures; // that are out; images are decoded in order
    atedm_engine_report report;
    struct atedm_engine_job *next; // in order of admission
} atedm_engine_job;

// From begin to end: an image, and whose it is, by lane.
typedef struct atedm_engine_evaluation {
    bool under_way;
    size_t n; // without images of jobs that have left meanwhile
    atedm_lane lanes[ATEDM_ENGINE_MAX_BATCH];
    atedm_engine_job *jobs[ATEDM_ENGINE_MAX_BATCH];
    double since; // it was enqueued
} atedm_engine_evaluation;

struct atedm_engine {
    atedm_engine_options options;
    atedm_engine_hooks hooks;
    const atedm_model *model;
    atedm_pipeline *pipeline;
    atedm_engine_job *jobs, **jobs_end;
    size_t n_jobs;
    atedm_engine_size *classes;
    size_t needed; // device bytes of weights, and of what the jobs may come to need, at most
    atedm_engine_job *encoding; // whose texts are being encoded; NULL: none
    double encoding_since;
    atedm_engine_job *decoding; // whose image `pictures` is being decoded; NULL: none
    uint8_t *rgb;
    double decoding_since; // where the device decodes it beside other things; 0: it does not
    atedm_engine_evaluation evaluation;
    double evaluation_s; // of the last one
    atedm_preview map;
    bool fitted, unfit; // there is a map; there cannot be one for now
};

bool atedm_engine_is_drawn(const atedm_engine_job *j, int image); // has no steps left

// Enqueues the next evaluation. False where no image has steps left. What could not begin is tried
// again the next time, with fewer images, or its job has failed.
bool atedm_engine_evaluation_begin(atedm_engine *e);
// Waits for what is under way, if there is something, and tells of it.
void atedm_engine_evaluation_end(atedm_engine *e);
// The device is done with the job, and no lane is the job's; the others' evaluation goes on.
void atedm_engine_evaluation_leave(atedm_engine *e, const atedm_engine_job *j);

// The job has failed, and is gone.
void atedm_engine_fail(atedm_engine *e, atedm_engine_job *j, atedm_status status,
                       const atedm_error *error);
// What is only kept to be quick goes where it would be too much.
void atedm_engine_limit_spare(atedm_engine *e);

#endif
