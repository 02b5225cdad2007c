// Times operations: see profile.h. A device's table is replaced by one whose entries time those of
// the table that was there.
#include "kernels/profile.h"

#include "core/base/clock.h"
#include "kernels/backend.h"
#include "kernels/operations.h"
#include "kernels/profile_bytes.h"

#include <math.h>
#include <stdlib.h>

enum {
#define X(name, parameters, arguments, bytes) OP_##name,
    ATEDM_OPERATIONS(X)
#undef X
        N_OPERATIONS
};
_Static_assert(N_OPERATIONS <= ATEDM_PROFILE_MAX, "room for every operation");

struct atedm_profile {
    atedm_backend table; // the device's, as long as it is profiled
    const atedm_backend *inner;
    atedm_device *device;
    atedm_profile_op ops[N_OPERATIONS];
    atedm_profile_rates rates;
};

static atedm_profile *profile_of(const atedm_stream *s)
{
    return (atedm_profile *)(uintptr_t)atedm_stream_backend(s); // its first member
}

// The FLOPs that the stream has counted since this was last asked. Operations are counted right
// before the table's entry is called.
static uint64_t take_flops(atedm_stream *s)
{
    const atedm_op_counts *c = &s->counts;
    uint64_t all = 2 * (c->conv + c->linear + c->attention + c->overhead);
    uint64_t flops = all - s->profiled_flops;
    s->profiled_flops = all;
    return flops;
}

// Adds a call that was enqueued at `start`, a monotonic time, and moves so many bytes.
static void note(atedm_stream *s, int op, double start, uint64_t bytes)
{
    atedm_profile *p = profile_of(s);
    atedm_profile_op *noted = &p->ops[op];
    uint64_t flops = take_flops(s);
    p->inner->stream_sync(s);
    if (!atedm_device_is_dry(s->device))
        noted->seconds += atedm_clock_monotonic() - start;
    noted->calls++;
    noted->flops += flops;
    noted->bytes += bytes;
    if (p->rates.flops_per_s > 0 && p->rates.bytes_per_s > 0)
        noted->floor_s +=
            fmax((double)flops / p->rates.flops_per_s, (double)bytes / p->rates.bytes_per_s);
}

#define X(name, parameters, arguments, moved)                                                      \
    static void timed_##name parameters                                                            \
    {                                                                                              \
        double start = atedm_clock_monotonic();                                                    \
        profile_of(s)->inner->ops.name arguments;                                                  \
        note(s, OP_##name, start, moved);                                                          \
    }
ATEDM_OPERATIONS(X)
#undef X

atedm_status atedm_profile_start(atedm_device *device, const atedm_profile_rates *rates,
                                 atedm_profile **ret_profile, atedm_error *err)
{
    atedm_profile *p = calloc(1, sizeof *p);
    if (!p)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a profile");
    p->inner = device->backend;
    p->device = device;
    if (rates)
        p->rates = *rates;
    p->table = *p->inner;
    // Operations that wait cannot be recorded, and nothing runs beside them.
    p->table.stream_repeat = NULL;
    p->table.stream_begin_aside = NULL;
    p->table.stream_end_aside = NULL;
    p->table.stream_join_aside = NULL;
#define X(op, parameters, arguments, bytes)                                                        \
    p->table.ops.op = timed_##op;                                                                  \
    p->ops[OP_##op].name = #op;
    ATEDM_OPERATIONS(X)
#undef X
    device->backend = &p->table;
    *ret_profile = p;
    return ATEDM_OK;
}

void atedm_profile_stop(atedm_profile *p)
{
    if (!p)
        return;
    p->device->backend = p->inner;
    free(p);
}

static bool is_longer(const atedm_profile_op *a, const atedm_profile_op *b)
{
    return a->seconds > b->seconds || (a->seconds == b->seconds && a->floor_s > b->floor_s);
}

size_t atedm_profile_read(const atedm_profile *p, atedm_profile_op ret_ops[ATEDM_PROFILE_MAX])
{
    size_t n = 0;
    for (int i = 0; i < N_OPERATIONS; i++) {
        const atedm_profile_op op = p->ops[i];
        if (!op.calls)
            continue;
        size_t at = n++;
        for (; at > 0 && is_longer(&op, &ret_ops[at - 1]); at--)
            ret_ops[at] = ret_ops[at - 1];
        ret_ops[at] = op;
    }
    return n;
}
