// Reads a device's figures from time to time: see figures.h.
//
// The thread, "atedm-figures", owns only the figures that it is just reading. The device is
// borrowed, and the thread uses only calls that are allowed on any thread. The mutex guards the
// latest figures.
#include "server/figures.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

struct atedm_figures {
    atedm_device *device;
    void (*wake)(void *user);
    void *user;
    pthread_t thread;
    pthread_mutex_t mutex; // guards the following
    pthread_cond_t changed;
    bool stopped, fresh;
    atedm_device_figures latest;
};

// Waits for one period. Returns false if the thread is to stop.
static bool wait_period(atedm_figures *f)
{
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += ATEDM_FIGURES_PERIOD_S;
    pthread_mutex_lock(&f->mutex);
    int timed_out = 0;
    while (!f->stopped && !timed_out)
        timed_out = pthread_cond_timedwait(&f->changed, &f->mutex, &end);
    bool stopped = f->stopped;
    pthread_mutex_unlock(&f->mutex);
    return !stopped;
}

static void *figures_main(void *user)
{
    atedm_figures *f = user;
    do {
        atedm_device_figures figures;
        if (!atedm_device_measure(f->device, &figures))
            break;
        pthread_mutex_lock(&f->mutex);
        f->latest = figures;
        f->fresh = true;
        pthread_mutex_unlock(&f->mutex);
        f->wake(f->user);
    } while (wait_period(f));
    return NULL;
}

static bool init_condition(pthread_cond_t *condition)
{
    pthread_condattr_t attributes;
    if (pthread_condattr_init(&attributes))
        return false;
    bool made = !pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) &&
                !pthread_cond_init(condition, &attributes);
    pthread_condattr_destroy(&attributes);
    return made;
}

atedm_status atedm_figures_start(atedm_device *device, void (*wake)(void *user), void *user,
                                 atedm_figures **ret_figures, atedm_error *err)
{
    atedm_device_figures unused;
    if (!atedm_device_measure(device, &unused)) {
        *ret_figures = NULL;
        return ATEDM_OK;
    }
    atedm_figures *f = calloc(1, sizeof *f);
    if (!f || !init_condition(&f->changed)) {
        free(f);
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a device's figures");
    }
    f->device = device;
    f->wake = wake;
    f->user = user;
    pthread_mutex_init(&f->mutex, NULL);
    if (pthread_create(&f->thread, NULL, figures_main, f)) {
        pthread_cond_destroy(&f->changed);
        pthread_mutex_destroy(&f->mutex);
        free(f);
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no thread for a device's figures");
    }
    pthread_setname_np(f->thread, "atedm-figures");
    *ret_figures = f;
    return ATEDM_OK;
}

void atedm_figures_stop(atedm_figures *f)
{
    if (!f)
        return;
    pthread_mutex_lock(&f->mutex);
    f->stopped = true;
    pthread_cond_signal(&f->changed);
    pthread_mutex_unlock(&f->mutex);
    pthread_join(f->thread, NULL);
    pthread_cond_destroy(&f->changed);
    pthread_mutex_destroy(&f->mutex);
    free(f);
}

bool atedm_figures_take(atedm_figures *f, atedm_device_figures *ret_figures)
{
    if (!f)
        return false;
    pthread_mutex_lock(&f->mutex);
    bool fresh = f->fresh;
    f->fresh = false;
    if (fresh)
        *ret_figures = f->latest;
    pthread_mutex_unlock(&f->mutex);
    return fresh;
}
