// The HTTP side of `atedm bench serve`, over libcurl: a number of clients with one connection each.
#ifndef ATEDM_CLI_LOAD_CLIENT_H
#define ATEDM_CLI_LOAD_CLIENT_H

#include "cli/load_run.h"
#include "core/base/status.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct atedm_load_clients atedm_load_clients;

// plan->max_open clients; `plan` is borrowed.
ATEDM_MUST_CHECK atedm_status atedm_load_clients_create(const atedm_load_plan *plan,
                                                        atedm_load_clients **ret_clients,
                                                        atedm_error *err);
void atedm_load_clients_destroy(atedm_load_clients *clients); // NULL is allowed

bool atedm_load_clients_idle(const atedm_load_clients *clients);   // at least one client is idle
size_t atedm_load_clients_open(const atedm_load_clients *clients); // requests without an answer yet

// Gives an idle client the request of sample number `sample`. Takes ownership of `take_body`, on
// failure too.
ATEDM_MUST_CHECK atedm_status atedm_load_clients_send(atedm_load_clients *clients, size_t sample,
                                                      char *take_body, atedm_error *err);
// Sends and receives as much as possible without waiting.
ATEDM_MUST_CHECK atedm_status atedm_load_clients_work(atedm_load_clients *clients,
                                                      atedm_error *err);
// Reports one request that has ended: sets status, error, ok, detailed and answer of its sample.
// False if there is none (any more).
bool atedm_load_clients_next(atedm_load_clients *clients, atedm_load_sample *samples,
                             size_t *ret_sample);
// Waits until there is work, or something to read from one of the two descriptors.
ATEDM_MUST_CHECK atedm_status atedm_load_clients_wait(atedm_load_clients *clients, int timer,
                                                      int signals, atedm_error *err);

#endif
