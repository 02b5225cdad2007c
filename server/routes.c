// The table of routes: see routes.h.
#include "server/routes.h"

#include "server/handlers.h"

const atedm_route atedm_routes[] = {
    {"/generate", NULL, atedm_handle_generate, NULL},
    {"/v1/generate", NULL, atedm_handle_generate, NULL},
    {"/jobs", atedm_handle_jobs, NULL, NULL},
    {"/jobs/{id}", atedm_handle_job, NULL, atedm_handle_job_remove},
    {"/jobs/{id}/events", atedm_handle_job_events, NULL, NULL},
    {"/jobs/{id}/images/{n}", atedm_handle_job_image, NULL, NULL},
    {"/v1/estimate", NULL, atedm_handle_estimate, NULL},
    {"/v1/models", atedm_handle_models, NULL, NULL},
    {"/v1/samplers", atedm_handle_samplers, NULL, NULL},
    {"/v1/schedules", atedm_handle_schedules, NULL, NULL},
    {"/metrics", atedm_handle_metrics, NULL, NULL},
    {"/metrics/flops", atedm_handle_flops, NULL, NULL},
    {"/metrics/latency", atedm_handle_latency, NULL, NULL},
    {"/healthz", atedm_handle_health, NULL, NULL},
    {"/readyz", atedm_handle_ready, NULL, NULL},
    {NULL, NULL, NULL, NULL},
};
