// Where the time goes, by operation: a device that is profiled times each operation that is
// enqueued on its streams, and waits for it. One thread uses the device meanwhile.
#ifndef ATEDM_KERNELS_PROFILE_H
#define ATEDM_KERNELS_PROFILE_H

#include "kernels/kernels.h"

#define ATEDM_PROFILE_MAX 32 // operations

typedef struct atedm_profile_op {
    const char *name; // as in kernels.h, without "atedm_"
    uint64_t calls;
    double seconds; // 0 on a dry device, which computes nothing
    uint64_t flops; // that it counted
    uint64_t bytes; // that it has to move at least: profile_bytes.h
    // The least that its calls can take: of each, its FLOPs or its bytes at the device's rates,
    // whichever takes longer. 0 where the rates are not known.
    double floor_s;
} atedm_profile_op;

// What the device reaches at best.
typedef struct atedm_profile_rates {
    double flops_per_s, bytes_per_s;
} atedm_profile_rates;

typedef struct atedm_profile atedm_profile;

// Until atedm_profile_stop, which comes before the device is destroyed. Streams may be made before,
// between and after. rates: NULL where they are not known.
ATEDM_MUST_CHECK atedm_status atedm_profile_start(atedm_device *device,
                                                  const atedm_profile_rates *rates,
                                                  atedm_profile **ret_profile, atedm_error *err);
void atedm_profile_stop(atedm_profile *profile); // NULL allowed
// Operations that were called, the one that took longest first; of a dry device the one with the
// largest floor. Returns their number.
size_t atedm_profile_read(const atedm_profile *profile,
                          atedm_profile_op ret_ops[ATEDM_PROFILE_MAX]);

#endif
