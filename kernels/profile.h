// Where the time goes, by operation: a device that is profiled times each operation that is
// enqueued on its streams, and waits for it. One thread uses the device meanwhile.
#ifndef ATEDM_KERNELS_PROFILE_H
#define ATEDM_KERNELS_PROFILE_H

#include "kernels/kernels.h"

#define ATEDM_PROFILE_MAX 32 // operations

typedef struct atedm_profile_op {
    const char *name; // as in kernels.h, without "atedm_"
    uint64_t calls;
    double seconds;
    uint64_t flops; // that it counted
} atedm_profile_op;

typedef struct atedm_profile atedm_profile;

// Until atedm_profile_stop, which comes before the device is destroyed. Streams may be made before,
// between and after.
ATEDM_MUST_CHECK atedm_status atedm_profile_start(atedm_device *device, atedm_profile **ret_profile,
                                                  atedm_error *err);
void atedm_profile_stop(atedm_profile *profile); // NULL allowed
void atedm_profile_reset(atedm_profile *profile);
// Operations that were called, the one that took longest first. Returns their number.
size_t atedm_profile_read(const atedm_profile *profile,
                          atedm_profile_op ret_ops[ATEDM_PROFILE_MAX]);

#endif
