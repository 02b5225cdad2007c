// Where the time goes, by operation: while a device is profiled, every operation that is enqueued
// on its streams is waited for and timed. Only one thread may use the device meanwhile.
#ifndef ATEDM_KERNELS_PROFILE_H
#define ATEDM_KERNELS_PROFILE_H

#include "kernels/kernels.h"

#define ATEDM_PROFILE_MAX 32 // operations

typedef struct atedm_profile_op {
    const char *name; // as in kernels.h, without "atedm_"
    uint64_t calls;
    double seconds; // 0 on a dry device, which computes nothing
    uint64_t flops; // as the operation counts them (atedm_op_counts)
    uint64_t bytes; // the least that the calls have to move: profile_bytes.h
    // The least seconds that the calls can take: for each call its FLOPs or its bytes at the
    // device's rates, whichever takes longer. 0 where the rates are not known.
    double floor_s;
} atedm_profile_op;

// The highest rates that the device reaches.
typedef struct atedm_profile_rates {
    double flops_per_s, bytes_per_s;
} atedm_profile_rates;

typedef struct atedm_profile atedm_profile;

// Profiles the device until atedm_profile_stop, which has to come before the device is destroyed.
// Streams may be made before and during the profile; on one that has counted something already
// atedm_stream_reset_counts comes first, else its first operation gets those FLOPs too. rates: NULL
// where they are not known.
ATEDM_MUST_CHECK atedm_status atedm_profile_start(atedm_device *device,
                                                  const atedm_profile_rates *rates,
                                                  atedm_profile **ret_profile, atedm_error *err);
void atedm_profile_stop(atedm_profile *profile); // NULL allowed
// The operations that were called, the one that took longest first (of a dry device the one with
// the largest floor). Returns their number.
size_t atedm_profile_read(const atedm_profile *profile,
                          atedm_profile_op ret_ops[ATEDM_PROFILE_MAX]);

#endif
