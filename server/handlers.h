// The handlers of requests, one a route; `app` is the daemon.
#ifndef ATEDM_HANDLERS_H
#define ATEDM_HANDLERS_H

#include "server/daemon.h"

void atedm_handle_page(void *app, atedm_exchange *exchange);       // page.c
void atedm_handle_generate(void *app, atedm_exchange *exchange);   // generate.c
void atedm_handle_estimate(void *app, atedm_exchange *exchange);   // estimate.c
void atedm_handle_jobs(void *app, atedm_exchange *exchange);       // jobs_handlers.c
void atedm_handle_job(void *app, atedm_exchange *exchange);        // jobs_handlers.c
void atedm_handle_job_remove(void *app, atedm_exchange *exchange); // jobs_handlers.c
void atedm_handle_job_image(void *app, atedm_exchange *exchange);  // jobs_handlers.c
void atedm_handle_job_events(void *app, atedm_exchange *exchange); // events.c
void atedm_handle_models(void *app, atedm_exchange *exchange);     // info.c
void atedm_handle_samplers(void *app, atedm_exchange *exchange);   // info.c
void atedm_handle_schedules(void *app, atedm_exchange *exchange);  // info.c
void atedm_handle_health(void *app, atedm_exchange *exchange);     // info.c
void atedm_handle_ready(void *app, atedm_exchange *exchange);      // info.c
void atedm_handle_metrics(void *app, atedm_exchange *exchange);    // views.c
void atedm_handle_flops(void *app, atedm_exchange *exchange);      // views.c
void atedm_handle_latency(void *app, atedm_exchange *exchange);    // views.c
void atedm_handle_openapi(void *app, atedm_exchange *exchange);    // openapi.c

// The job of /jobs/{id}... while it is live, where it is the client's; NULL: the store may know it.
atedm_live *atedm_job_of_path(const atedm_daemon *daemon, const atedm_exchange *exchange);

#endif
