// The handlers of requests, one a route; `app` is the daemon.
#ifndef ATEDM_HANDLERS_H
#define ATEDM_HANDLERS_H

#include "server/http.h"

void atedm_handle_generate(void *app, atedm_exchange *exchange);  // generate.c
void atedm_handle_estimate(void *app, atedm_exchange *exchange);  // estimate.c
void atedm_handle_models(void *app, atedm_exchange *exchange);    // info.c
void atedm_handle_samplers(void *app, atedm_exchange *exchange);  // info.c
void atedm_handle_schedules(void *app, atedm_exchange *exchange); // info.c
void atedm_handle_health(void *app, atedm_exchange *exchange);    // info.c
void atedm_handle_ready(void *app, atedm_exchange *exchange);     // info.c
void atedm_handle_metrics(void *app, atedm_exchange *exchange);   // views.c
void atedm_handle_flops(void *app, atedm_exchange *exchange);     // views.c
void atedm_handle_latency(void *app, atedm_exchange *exchange);   // views.c

#endif
