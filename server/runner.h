// What a worker does with requests: opens the model on a device, keeps those that do not fit yet,
// gives the others to the engine, has PNGs made of what comes out (encoder.h). Belongs to one
// thread.
#ifndef ATEDM_RUNNER_H
#define ATEDM_RUNNER_H

#include "core/request.h"
#include "server/worker_message.h"

#include <stdbool.h>

typedef struct atedm_runner atedm_runner;

// Takes what the message owns.
typedef void (*atedm_runner_post_fn)(void *user, const atedm_worker_message *message);
// There is something to do again. Called on another thread.
typedef void (*atedm_runner_wake_fn)(void *user);

// `backend` "auto" takes the best that is there, `dtype` "auto" the fastest on the device.
ATEDM_MUST_CHECK atedm_status atedm_runner_open(const atedm_worker_options *options,
                                                atedm_runner_post_fn post,
                                                atedm_runner_wake_fn wake, void *user,
                                                atedm_runner **ret_runner,
                                                atedm_worker_facts *ret_facts, atedm_error *err);
void atedm_runner_close(atedm_runner *runner); // NULL allowed

// Each job is told DONE or ERROR once, unless it is canceled before. Takes what the request owns.
void atedm_runner_submit(atedm_runner *runner, uint64_t job, atedm_request *take_request);
void atedm_runner_cancel(atedm_runner *runner, uint64_t job);
// Whether there are to be previews of the job. One of a step that comes while the former one is
// still being encoded is left out. Nothing happens where the job is not there.
void atedm_runner_watch(atedm_runner *runner, uint64_t job, bool on);
// Where it has jobs, a message comes with every turn that is so long behind the last one.
#define ATEDM_RUNNER_ALIVE_S 0.05
// False where there is nothing to do until something is submitted, or until `wake` is called.
bool atedm_runner_turn(atedm_runner *runner);

size_t atedm_runner_device_memory(const atedm_runner *runner);

// What the log should have, each once; NULL where nothing is new. Borrowed.
const char *atedm_runner_take_remark(atedm_runner *runner);

#endif
