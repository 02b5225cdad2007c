// What a worker computes: opens the model, and runs one request at a time stage by stage. Belongs
// to one thread.
#ifndef ATEDM_ENGINE_H
#define ATEDM_ENGINE_H

#include "server/worker.h"

typedef struct atedm_engine atedm_engine;

// `backend` "auto" takes the best that is there, `dtype` "auto" the fastest on the device.
ATEDM_MUST_CHECK atedm_status atedm_engine_open(const char *model, const char *backend,
                                                const char *dtype, atedm_engine **ret_engine,
                                                atedm_worker_facts *ret_facts, atedm_error *err);
void atedm_engine_close(atedm_engine *engine); // NULL allowed

typedef struct atedm_engine_hooks {
    void (*progress)(void *user, uint64_t job, int step, double step_s); // a step is done
    bool (*canceled)(void *user, uint64_t job); // asked between any two stages, steps and images
    void *user;
} atedm_engine_hooks;

ATEDM_MUST_CHECK atedm_status atedm_engine_run(atedm_engine *engine, uint64_t job,
                                               const atedm_request *request,
                                               const atedm_engine_hooks *hooks,
                                               atedm_worker_result **ret_result, atedm_error *err);

// Bytes held on the device: weights and scratch memory.
size_t atedm_engine_device_memory(const atedm_engine *engine);

#endif
