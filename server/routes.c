// The table of routes: see routes.h.
#include "server/routes.h"

#include "server/handlers.h"

const atedm_route atedm_routes[] = {
    {.path = "/", .get = atedm_handle_page, .access = ATEDM_ROUTE_OPEN},
    {.path = "/generate", .post = atedm_handle_generate},
    {.path = "/v1/generate", .post = atedm_handle_generate},
    {.path = "/jobs", .get = atedm_handle_jobs},
    {.path = "/jobs/{id}", .get = atedm_handle_job, .remove = atedm_handle_job_remove},
    {.path = "/jobs/{id}/events", .get = atedm_handle_job_events},
    {.path = "/jobs/{id}/images/{n}", .get = atedm_handle_job_image},
    {.path = "/v1/estimate", .post = atedm_handle_estimate},
    {.path = "/v1/models", .get = atedm_handle_models},
    {.path = "/v1/samplers", .get = atedm_handle_samplers},
    {.path = "/v1/schedules", .get = atedm_handle_schedules},
    {.path = "/metrics", .get = atedm_handle_metrics, .access = ATEDM_ROUTE_OPEN},
    {.path = "/metrics/flops", .get = atedm_handle_flops},
    {.path = "/metrics/latency", .get = atedm_handle_latency},
    {.path = "/healthz", .get = atedm_handle_health, .access = ATEDM_ROUTE_OPEN},
    {.path = "/readyz", .get = atedm_handle_ready, .access = ATEDM_ROUTE_OPEN},
    {.path = "/openapi.json", .get = atedm_handle_openapi, .access = ATEDM_ROUTE_OPEN},
    {.path = NULL},
};
