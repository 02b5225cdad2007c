// Memory of the cpu backend: see cpu.h.
#include "kernels/cpu/cpu.h"

#include <stdlib.h>
#include <sys/mman.h>

#define HUGE_PAGE ((size_t)2 << 20)

void *atedm_cpu_alloc(size_t bytes)
{
    void *memory;
    if (bytes > SIZE_MAX / 2)
        return NULL;
    if (bytes < HUGE_PAGE)
        return posix_memalign(&memory, ATEDM_DEVICE_ALIGN, bytes ? bytes : 1) ? NULL : memory;
    if (posix_memalign(&memory, HUGE_PAGE, bytes))
        return NULL;
    madvise(memory, bytes, MADV_HUGEPAGE); // only for speed: failure does not matter
    return memory;
}

void *atedm_cpu_buffer_get(atedm_cpu_buffer *buffer, size_t bytes)
{
    if (bytes <= buffer->bytes && buffer->memory)
        return buffer->memory;
    void *memory = atedm_cpu_alloc(bytes);
    if (!memory)
        return NULL;
    free(buffer->memory);
    *buffer = (atedm_cpu_buffer){.memory = memory, .bytes = bytes};
    return memory;
}

size_t atedm_cpu_bytes(int64_t a, int64_t b, size_t c)
{
    size_t product;
    if (a < 0 || b < 0 || __builtin_mul_overflow((size_t)a, (size_t)b, &product) ||
        __builtin_mul_overflow(product, c, &product))
        return SIZE_MAX;
    return product;
}

void *atedm_cpu_scratch_get(atedm_cpu_stream *s, atedm_cpu_scratch slot, size_t bytes)
{
    void *memory = atedm_cpu_buffer_get(&s->scratch[slot], bytes);
    if (!memory)
        atedm_stream_fail(&s->head, ATEDM_ERR_NOMEM, "no memory for %zu bytes of scratch", bytes);
    return memory;
}
