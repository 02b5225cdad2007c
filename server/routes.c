// The table of routes: see routes.h.
#include "server/routes.h"

#include "server/handlers.h"

const atedm_route atedm_routes[] = {
    {"/generate", NULL, atedm_handle_generate, ATEDM_ROUTE_CLIENTS},
    {"/v1/generate", NULL, atedm_handle_generate, ATEDM_ROUTE_CLIENTS},
    {"/v1/estimate", NULL, atedm_handle_estimate, ATEDM_ROUTE_CLIENTS},
    {"/v1/models", atedm_handle_models, NULL, ATEDM_ROUTE_CLIENTS},
    {"/v1/samplers", atedm_handle_samplers, NULL, ATEDM_ROUTE_CLIENTS},
    {"/v1/schedules", atedm_handle_schedules, NULL, ATEDM_ROUTE_CLIENTS},
    {"/metrics", atedm_handle_metrics, NULL, ATEDM_ROUTE_OPEN},
    {"/metrics/flops", atedm_handle_flops, NULL, ATEDM_ROUTE_CLIENTS},
    {"/metrics/latency", atedm_handle_latency, NULL, ATEDM_ROUTE_CLIENTS},
    {"/healthz", atedm_handle_health, NULL, ATEDM_ROUTE_OPEN},
    {"/readyz", atedm_handle_ready, NULL, ATEDM_ROUTE_OPEN},
    {NULL, NULL, NULL, ATEDM_ROUTE_CLIENTS},
};
