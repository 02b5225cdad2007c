// A pipeline on a toy model of the goldens, for tests of whole requests.
#ifndef ATEDM_TESTS_PIPELINE_BENCH_H
#define ATEDM_TESTS_PIPELINE_BENCH_H

#include "core/pipeline.h"

#define SIDE 64
#define BYTES ((size_t)3 * SIDE * SIDE)

typedef struct pipeline_bench {
    atedm_device *device;
    atedm_model *model;
    atedm_pipeline *pipeline;
} pipeline_bench;

// Model b of ATEDM_GOLDEN_DIR. Failures end the test.
pipeline_bench pipeline_bench_open(const char *backend, atedm_dtype dtype);
void pipeline_bench_close(pipeline_bench *b);
// Calls check with a bench there, unless the machine cannot: bf16 needs a processor that has it.
void pipeline_bench_on(const char *backend, atedm_dtype dtype,
                       void (*check)(const pipeline_bench *b));
// On every backend and dtype.
void pipeline_bench_everywhere(void (*check)(const pipeline_bench *b));

// A guided request for one image of SIDE x SIDE with a preset's pruning; finish it.
atedm_request pipeline_bench_request(const char *preset);
// All images of the request, side by side; the caller frees.
uint8_t *pipeline_bench_generate(const pipeline_bench *b, const atedm_request *request);

#endif
