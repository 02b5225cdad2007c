// Checks what kernels.h promises of devices, memory and streams, on one backend.
#include "kernels/backend.h"
#include "tests/parity/parity.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

// AddressSanitizer reads this, if the program is built with it: an allocation that is too large
// must fail as usual, and not end the program.
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}

static int wrong(const char *what)
{
    printf("FAIL devices: %s\n", what);
    return 1;
}

static int check_memory(atedm_device *device)
{
    static const size_t sizes[] = {0, 1, 63, 64, 65, 1000};
    enum { N = sizeof sizes / sizeof *sizes };
    void *memory[N];
    int failed = 0;
    atedm_error err = {{0}};
    for (size_t i = 0; i < N; i++) {
        parity_require(atedm_device_alloc(device, sizes[i], &memory[i], &err), &err, "alloc");
        if (!memory[i] || (uintptr_t)memory[i] % ATEDM_DEVICE_ALIGN)
            failed += wrong("memory is not aligned");
        for (size_t j = 0; j < i; j++) // blocks must not overlap
            if ((uintptr_t)memory[i] < (uintptr_t)memory[j] + sizes[j] &&
                (uintptr_t)memory[j] < (uintptr_t)memory[i] + sizes[i])
                failed += wrong("two pieces of memory overlap");
    }
    for (size_t i = 0; i < N; i++)
        atedm_device_free(device, memory[i]);
    atedm_device_free(device, NULL);
    void *untouched = memory;
    if (atedm_device_alloc(device, ATEDM_MAX_DEVICE_BYTES + 1, &untouched, &err) !=
            ATEDM_ERR_NOMEM ||
        untouched != memory || !strstr(err.message, "limit"))
        failed += wrong("more than the limit was to be had");
    return failed;
}

static int check_streams(atedm_device *device)
{
    static const atedm_dtype never[] = {ATEDM_I64, ATEDM_I32, ATEDM_U8};
    int failed = 0;
    atedm_stream *stream = NULL;
    atedm_error err = {{0}};
    for (size_t i = 0; i < sizeof never / sizeof *never; i++)
        if (atedm_device_supports(device, never[i]) ||
            atedm_stream_create(device, never[i], &stream, &err) != ATEDM_ERR_UNSUPPORTED || stream)
            failed += wrong("computes in integers");
    if (!atedm_device_supports(device, ATEDM_F32) ||
        !atedm_device_supports(device, atedm_device_best_dtype(device)))
        failed += wrong("does not support f32 or the dtype that it calls best");
    parity_require(atedm_stream_create(device, ATEDM_F32, &stream, &err), &err, "stream");
    if (atedm_stream_device(stream) != device || atedm_stream_dtype(stream) != ATEDM_F32)
        failed += wrong("a stream does not know where it is from");
    parity_require(atedm_stream_sync(stream, &err), &err, "a stream without operations");
    atedm_stream_destroy(stream);
    atedm_stream_destroy(NULL);
    return failed;
}

// Checks the table's entries that callers use without testing whether they are NULL.
static int check_table(const atedm_device *device)
{
    const atedm_backend *b = device->backend;
    int failed = 0;
    if (!b->device_create || !b->device_destroy || !b->supports || !b->best_dtype || !b->alloc ||
        !b->free || !b->stream_create || !b->stream_destroy || !b->stream_sync || !b->upload ||
        !b->download || !b->copy || !b->linear_weight_create || !b->conv_weight_create ||
        !b->norm_weight_create || !b->table_weight_create || !b->weight_destroy)
        failed += wrong("lacks a function for devices, memory, streams or weights");
    if (!b->stream_set_background != !b->stream_idle ||
        !b->stream_begin_aside != !b->stream_end_aside ||
        !b->stream_begin_aside != !b->stream_join_aside || !b->stream_repeat != !b->stream_forget)
        failed += wrong("has some functions for streams without those that go with them");
#define X(op, parameters, arguments, bytes)                                                        \
    if (!b->ops.op)                                                                                \
        failed += wrong("lacks the operation " #op);
    ATEDM_OPERATIONS(X)
#undef X
    return failed;
}

int parity_devices(const char *backend)
{
    atedm_device *device = NULL;
    atedm_error err = {{0}};
    int failed = 0;
    if (atedm_device_create("cpu2", &device, &err) != ATEDM_ERR_NOT_FOUND || device ||
        !strstr(err.message, "cpu2"))
        failed += wrong("there is a backend \"cpu2\"");
    parity_require(atedm_device_create(backend, &device, &err), &err, "device");
    if (strcmp(atedm_device_backend(device), backend) != 0 ||
        !atedm_device_describe(device)->name[0] ||
        atedm_device_is_dry(device) != !strcmp(backend, "dry"))
        failed += wrong("has a wrong name");
    failed += check_table(device);
    failed += check_memory(device);
    failed += check_streams(device);
    atedm_device_destroy(device);
    atedm_device_destroy(NULL);
    atedm_weight_destroy(NULL);
    printf("%s devices\n", failed ? "FAIL" : "ok  ");
    return failed;
}
