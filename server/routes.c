// The table of routes: see routes.h.
#include "server/routes.h"

#include "server/handlers.h"

const atedm_route atedm_routes[] = {
    {"/generate", NULL, atedm_handle_generate},
    {"/v1/generate", NULL, atedm_handle_generate},
    {"/v1/estimate", NULL, atedm_handle_estimate},
    {"/v1/models", atedm_handle_models, NULL},
    {"/v1/samplers", atedm_handle_samplers, NULL},
    {"/v1/schedules", atedm_handle_schedules, NULL},
    {"/metrics", atedm_handle_metrics, NULL},
    {"/metrics/flops", atedm_handle_flops, NULL},
    {"/metrics/latency", atedm_handle_latency, NULL},
    {"/healthz", atedm_handle_health, NULL},
    {"/readyz", atedm_handle_ready, NULL},
    {NULL, NULL, NULL},
};
