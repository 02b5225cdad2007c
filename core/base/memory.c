// Growing buffer: see memory.h.
#include "core/base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void atedm_buffer_init(atedm_buffer *buffer, size_t max)
{
    *buffer = (atedm_buffer){.max = max};
}

void atedm_buffer_finish(atedm_buffer *buffer)
{
    if (!buffer)
        return;
    free(buffer->data);
    *buffer = (atedm_buffer){.max = buffer->max};
}

static atedm_status reserve(atedm_buffer *buffer, size_t extra)
{
    if (extra > buffer->max || buffer->size > buffer->max - extra)
        return ATEDM_ERR_LIMIT;
    size_t need = buffer->size + extra + 1;
    if (need <= buffer->capacity)
        return ATEDM_OK;
    size_t capacity = buffer->capacity ? buffer->capacity : 256;
    while (capacity < need)
        capacity *= 2;
    char *data = realloc(buffer->data, capacity);
    if (!data)
        return ATEDM_ERR_NOMEM;
    buffer->data = data;
    buffer->capacity = capacity;
    return ATEDM_OK;
}

atedm_status atedm_buffer_append(atedm_buffer *buffer, const void *data, size_t size)
{
    atedm_status status = reserve(buffer, size);
    if (status)
        return status;
    if (size)
        memcpy(buffer->data + buffer->size, data, size);
    buffer->size += size;
    buffer->data[buffer->size] = '\0';
    return ATEDM_OK;
}

atedm_status atedm_buffer_printf(atedm_buffer *buffer, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (length < 0)
        return ATEDM_ERR_INVALID;
    atedm_status status = reserve(buffer, (size_t)length);
    if (status)
        return status;
    va_start(args, format);
    vsnprintf(buffer->data + buffer->size, (size_t)length + 1, format, args);
    va_end(args);
    buffer->size += (size_t)length;
    return ATEDM_OK;
}
