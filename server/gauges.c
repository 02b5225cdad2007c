// Sets the metrics that describe the daemon as a whole: see gauges.h.
#include "server/gauges.h"

#include "server/accounts.h"
#include "server/process.h"

void atedm_gauges_start(atedm_daemon *d)
{
    atedm_worker_state worker;
    for (size_t i = 0; atedm_dispatch_get_worker(d->dispatch, i, &worker); i++) {
        atedm_metrics_set(d->metrics, ATEDM_METRIC_WORKER_UP, 0, ATEDM_LABELS(worker.device));
        atedm_metrics_count(d->metrics, ATEDM_METRIC_WORKER_RESTARTS, 0,
                            ATEDM_LABELS(worker.device));
    }
    atedm_metrics_set(d->metrics, ATEDM_METRIC_BUILD_INFO, 1, ATEDM_LABELS(ATEDM_VERSION));
    atedm_metrics_set(d->metrics, ATEDM_METRIC_PROCESS_START_TIME, atedm_process_read().start_time,
                      ATEDM_NO_LABELS);
    atedm_account_start_rejections(d->metrics);
    atedm_jobs_start_metrics(d->metrics);
    // rate() does not see a counter's first event if the series begins with it. So these series
    // start at 0.
    const char *const routes[] = {"/generate", "/v1/generate"};
    const char *const codes[] = {"200", "202", "500", "503", "504"};
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++)
        for (size_t k = 0; k < sizeof codes / sizeof *codes; k++)
            atedm_metrics_count(d->metrics, ATEDM_METRIC_REQUESTS, 0,
                                ATEDM_LABELS(routes[i], codes[k]));
}

void atedm_gauges_measure(atedm_daemon *d)
{
    atedm_dispatch_state state = atedm_dispatch_get_state(d->dispatch);
    atedm_process process = atedm_process_read();
    const struct {
        atedm_metric metric;
        double value;
    } gauges[] = {
        {ATEDM_METRIC_QUEUE_DEPTH, (double)state.depth},
        {ATEDM_METRIC_QUEUE_FLOPS, (double)state.queue_flops},
        {ATEDM_METRIC_QUEUE_OLDEST, atedm_dispatch_oldest_wait(d->dispatch)},
        {ATEDM_METRIC_ACTIVE_REQUESTS, (double)state.active},
        {ATEDM_METRIC_PROCESS_CPU_SECONDS, process.cpu_seconds},
        {ATEDM_METRIC_PROCESS_OPEN_FDS, process.open_fds},
        {ATEDM_METRIC_PROCESS_MAX_FDS, process.max_fds},
        {ATEDM_METRIC_PROCESS_VIRTUAL_MEMORY, process.virtual_bytes},
        {ATEDM_METRIC_PROCESS_RESIDENT_MEMORY, process.resident_bytes},
    };
    for (size_t i = 0; i < sizeof gauges / sizeof *gauges; i++)
        atedm_metrics_set(d->metrics, gauges[i].metric, gauges[i].value, ATEDM_NO_LABELS);
    atedm_worker_state worker;
    for (size_t i = 0; atedm_dispatch_get_worker(d->dispatch, i, &worker); i++)
        atedm_metrics_set(d->metrics, ATEDM_METRIC_DEVICE_MEMORY, (double)worker.device_memory,
                          ATEDM_LABELS(worker.device));
}
