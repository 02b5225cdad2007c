// The table of metrics: their names, HELP texts, labels and buckets.
#include "server/metrics_private.h"

#define SECONDS_OF_REQUESTS                                                                        \
    {                                                                                              \
        0.0001, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600        \
    }
#define SECONDS_OF_STEPS                                                                           \
    {                                                                                              \
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120        \
    }

const atedm_metric_family atedm_metric_families[ATEDM_METRIC_COUNT] = {
    [ATEDM_METRIC_REQUESTS] = {"atedm_requests_total",
                               "Requests answered; code 499: the client went away first.",
                               ATEDM_COUNTER,
                               {"route", "code"},
                               {0}},
    [ATEDM_METRIC_REQUEST_DURATION] = {"atedm_request_duration_seconds",
                                       "From the first line of a request to its answer.",
                                       ATEDM_HISTOGRAM,
                                       {"route"},
                                       SECONDS_OF_REQUESTS},
    [ATEDM_METRIC_STAGE_DURATION] = {"atedm_stage_duration_seconds",
                                     "Stages of finished requests; queue: of started ones.",
                                     ATEDM_HISTOGRAM,
                                     {"stage"},
                                     SECONDS_OF_REQUESTS},
    [ATEDM_METRIC_STEP_DURATION] = {"atedm_step_duration_seconds",
                                    "Denoising steps.",
                                    ATEDM_HISTOGRAM,
                                    {"device"},
                                    SECONDS_OF_STEPS},
    [ATEDM_METRIC_IMAGES] = {"atedm_images_total",
                             "Images made, by sampler and pruning preset.",
                             ATEDM_COUNTER,
                             {"sampler", "pruning"},
                             {0}},
    [ATEDM_METRIC_FLOPS] = {"atedm_flops_total",
                            "FLOPs of finished requests: executed (overhead included), baseline "
                            "(the same without pruning), overhead (what pruning adds).",
                            ATEDM_COUNTER,
                            {"kind", "stage"},
                            {0}},
    [ATEDM_METRIC_FLOPS_SAVED] = {"atedm_flops_saved_ratio",
                                  "1 - executed / baseline FLOPs of each finished request.",
                                  ATEDM_HISTOGRAM,
                                  {NULL},
                                  {0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6,
                                   0.7, 0.8, 0.9}},
    [ATEDM_METRIC_TOKENS] =
        {"atedm_tokens_total",
         "Tokens of attention blocks that were alive at their end, and that were not, by "
         "feature level.",
         ATEDM_COUNTER,
         {"kind", "level"},
         {0}},
    [ATEDM_METRIC_BATCH_SIZE] = {"atedm_batch_size",
                                 "Images that shared a UNet evaluation.",
                                 ATEDM_HISTOGRAM,
                                 {"device"},
                                 {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64}},
    [ATEDM_METRIC_QUEUE_DEPTH] =
        {"atedm_queue_depth", "Requests that wait.", ATEDM_GAUGE, {NULL}, {0}},
    [ATEDM_METRIC_QUEUE_FLOPS] =
        {"atedm_queue_flops", "FLOPs of the requests that wait.", ATEDM_GAUGE, {NULL}, {0}},
    [ATEDM_METRIC_QUEUE_OLDEST] = {"atedm_queue_oldest_seconds",
                                   "How long the request that waits longest has waited; 0: none.",
                                   ATEDM_GAUGE,
                                   {NULL},
                                   {0}},
    [ATEDM_METRIC_ACTIVE_REQUESTS] =
        {"atedm_active_requests", "Requests that a worker has.", ATEDM_GAUGE, {NULL}, {0}},
    [ATEDM_METRIC_QUEUE_REJECTED] = {"atedm_queue_rejected_total",
                                     "Generations refused or given up, by reason.",
                                     ATEDM_COUNTER,
                                     {"reason"},
                                     {0}},
    [ATEDM_METRIC_JOBS] = {"atedm_jobs_total",
                           "Jobs whose end is on disk: done, failed, canceled.",
                           ATEDM_COUNTER,
                           {"state"},
                           {0}},
    [ATEDM_METRIC_STORE_ERRORS] = {"atedm_store_errors_total",
                                   "Times that the job store could not be written: add, end (tried "
                                   "again until it can), expire.",
                                   ATEDM_COUNTER,
                                   {"operation"},
                                   {0}},
    [ATEDM_METRIC_WORKER_UP] =
        {"atedm_worker_up", "1 while the worker takes requests.", ATEDM_GAUGE, {"device"}, {0}},
    [ATEDM_METRIC_WORKER_RESTARTS] = {"atedm_worker_restarts_total",
                                      "Times that the worker was started anew.",
                                      ATEDM_COUNTER,
                                      {"device"},
                                      {0}},
    [ATEDM_METRIC_DEVICE_MEMORY] =
        {"atedm_device_memory_bytes",
         "Memory that the worker holds on its device: weights and scratch.",
         ATEDM_GAUGE,
         {"device"},
         {0}},
    [ATEDM_METRIC_DEVICE_MEMORY_FREE] = {"atedm_device_memory_free_bytes",
                                         "Memory of the device that nobody uses.",
                                         ATEDM_GAUGE,
                                         {"device"},
                                         {0}},
    [ATEDM_METRIC_DEVICE_MEMORY_TOTAL] =
        {"atedm_device_memory_total_bytes", "Memory of the device.", ATEDM_GAUGE, {"device"}, {0}},
    [ATEDM_METRIC_DEVICE_MEMORY_USED] = {"atedm_device_memory_used_bytes",
                                         "Memory of the device that is in use, by whomever.",
                                         ATEDM_GAUGE,
                                         {"device"},
                                         {0}},
    [ATEDM_METRIC_DEVICE_UTILIZATION] = {"atedm_device_utilization_ratio",
                                         "Share of the time in which the device computed lately.",
                                         ATEDM_GAUGE,
                                         {"device"},
                                         {0}},
    [ATEDM_METRIC_DEVICE_POWER] =
        {"atedm_device_power_watts", "Power that the device draws.", ATEDM_GAUGE, {"device"}, {0}},
    [ATEDM_METRIC_DEVICE_TEMPERATURE] = {"atedm_device_temperature_celsius",
                                         "Temperature of the device.",
                                         ATEDM_GAUGE,
                                         {"device"},
                                         {0}},
    [ATEDM_METRIC_DEVICE_SM_CLOCK] = {"atedm_device_sm_clock_hertz",
                                      "Clock of the device's processors.",
                                      ATEDM_GAUGE,
                                      {"device"},
                                      {0}},
    [ATEDM_METRIC_DEVICE_MEMORY_CLOCK] = {"atedm_device_memory_clock_hertz",
                                          "Clock of the device's memory.",
                                          ATEDM_GAUGE,
                                          {"device"},
                                          {0}},
    [ATEDM_METRIC_MODEL_INFO] = {"atedm_model_info",
                                 "1; the labels tell the model.",
                                 ATEDM_GAUGE,
                                 {"model", "dtype", "backend"},
                                 {0}},
    [ATEDM_METRIC_BUILD_INFO] =
        {"atedm_build_info", "1; the label tells the version.", ATEDM_GAUGE, {"version"}, {0}},
    [ATEDM_METRIC_PROCESS_CPU_SECONDS] = {"process_cpu_seconds_total",
                                          "Processor time, user and system.",
                                          ATEDM_REAL_COUNTER,
                                          {NULL},
                                          {0}},
    [ATEDM_METRIC_PROCESS_OPEN_FDS] =
        {"process_open_fds", "Open file descriptors.", ATEDM_GAUGE, {NULL}, {0}},
    [ATEDM_METRIC_PROCESS_MAX_FDS] =
        {"process_max_fds", "Limit of open file descriptors.", ATEDM_GAUGE, {NULL}, {0}},
    [ATEDM_METRIC_PROCESS_VIRTUAL_MEMORY] =
        {"process_virtual_memory_bytes", "Virtual memory.", ATEDM_GAUGE, {NULL}, {0}},
    [ATEDM_METRIC_PROCESS_RESIDENT_MEMORY] =
        {"process_resident_memory_bytes", "Resident memory.", ATEDM_GAUGE, {NULL}, {0}},
    [ATEDM_METRIC_PROCESS_START_TIME] = {"process_start_time_seconds",
                                         "Start of the process, seconds since 1970.",
                                         ATEDM_GAUGE,
                                         {NULL},
                                         {0}},
};

size_t atedm_metric_n_labels(const atedm_metric_family *f)
{
    size_t n = 0;
    while (n < ATEDM_METRIC_MAX_LABELS && f->labels[n])
        n++;
    return n;
}

size_t atedm_metric_n_bounds(const atedm_metric_family *f)
{
    size_t n = 0;
    while (n < ATEDM_METRIC_MAX_BUCKETS && f->bounds[n] > 0)
        n++;
    return n;
}
