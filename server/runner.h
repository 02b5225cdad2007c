// The part of a worker that handles requests. It opens the model on a device, gives requests to the
// engine, keeps those for which the engine has no room yet, and has PNGs made of the pictures
// (encoder.h). One thread makes all calls.
#ifndef ATEDM_RUNNER_H
#define ATEDM_RUNNER_H

#include "core/request.h"
#include "server/worker_message.h"

#include <stdbool.h>

typedef struct atedm_runner atedm_runner;

// Receives a message on the runner's thread, and takes what the message owns.
typedef void (*atedm_runner_post_fn)(void *user, const atedm_worker_message *message);
// There is something to do: call atedm_runner_turn again. Called on other threads.
typedef void (*atedm_runner_wake_fn)(void *user);

// Loads the model, which can take minutes. `backend` "auto" is the best available backend, `dtype`
// "auto" the fastest dtype on the device. *ret_facts describes the worker. ATEDM_ERR_UNSUPPORTED:
// the backend is missing or lacks the dtype; ATEDM_ERR_NOMEM; or an error of the model or device.
ATEDM_MUST_CHECK atedm_status atedm_runner_open(const atedm_worker_options *options,
                                                atedm_runner_post_fn post,
                                                atedm_runner_wake_fn wake, void *user,
                                                atedm_runner **ret_runner,
                                                atedm_worker_facts *ret_facts, atedm_error *err);
void atedm_runner_close(atedm_runner *runner); // NULL allowed

// Adds a job, and takes what the request owns. The runner posts DONE or ERROR for the job once,
// unless the job is canceled before.
void atedm_runner_submit(atedm_runner *runner, uint64_t job, atedm_request *take_request);
// Discards the job: no message of it is posted from now on. An unknown job is ignored.
void atedm_runner_cancel(atedm_runner *runner, uint64_t job);
// Turns previews of the job on or off. A step has no preview if the encoder is still busy with the
// job's previous preview, or is full. An unknown job is ignored.
void atedm_runner_watch(atedm_runner *runner, uint64_t job, bool on);
// While it has jobs, the runner posts ALIVE at the end of a turn if its last message is older than
// this many seconds.
#define ATEDM_RUNNER_ALIVE_S 0.05
// Does one piece of work. Returns false if there is nothing to do until a request is submitted or
// `wake` is called.
bool atedm_runner_turn(atedm_runner *runner);

// Bytes that the engine holds on the device.
size_t atedm_runner_device_memory(const atedm_runner *runner);

// The next remark for the log; each is returned once. NULL: there is none. Borrowed.
const char *atedm_runner_take_remark(atedm_runner *runner);

#endif
