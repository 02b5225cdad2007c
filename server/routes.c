// The table of routes: see routes.h.
#include "server/routes.h"

#include "server/handlers.h"

const atedm_route atedm_routes[] = {
    {"/", atedm_handle_page, NULL, NULL, ATEDM_ROUTE_OPEN},
    {"/generate", NULL, atedm_handle_generate, NULL, ATEDM_ROUTE_CLIENTS},
    {"/v1/generate", NULL, atedm_handle_generate, NULL, ATEDM_ROUTE_CLIENTS},
    {"/jobs", atedm_handle_jobs, NULL, NULL, ATEDM_ROUTE_CLIENTS},
    {"/jobs/{id}", atedm_handle_job, NULL, atedm_handle_job_remove, ATEDM_ROUTE_CLIENTS},
    {"/jobs/{id}/events", atedm_handle_job_events, NULL, NULL, ATEDM_ROUTE_CLIENTS},
    {"/jobs/{id}/images/{n}", atedm_handle_job_image, NULL, NULL, ATEDM_ROUTE_CLIENTS},
    {"/v1/estimate", NULL, atedm_handle_estimate, NULL, ATEDM_ROUTE_CLIENTS},
    {"/v1/models", atedm_handle_models, NULL, NULL, ATEDM_ROUTE_CLIENTS},
    {"/v1/samplers", atedm_handle_samplers, NULL, NULL, ATEDM_ROUTE_CLIENTS},
    {"/v1/schedules", atedm_handle_schedules, NULL, NULL, ATEDM_ROUTE_CLIENTS},
    {"/metrics", atedm_handle_metrics, NULL, NULL, ATEDM_ROUTE_OPEN},
    {"/metrics/flops", atedm_handle_flops, NULL, NULL, ATEDM_ROUTE_CLIENTS},
    {"/metrics/latency", atedm_handle_latency, NULL, NULL, ATEDM_ROUTE_CLIENTS},
    {"/healthz", atedm_handle_health, NULL, NULL, ATEDM_ROUTE_OPEN},
    {"/readyz", atedm_handle_ready, NULL, NULL, ATEDM_ROUTE_OPEN},
    {"/openapi.json", atedm_handle_openapi, NULL, NULL, ATEDM_ROUTE_OPEN},
    {NULL, NULL, NULL, NULL, ATEDM_ROUTE_CLIENTS},
};
