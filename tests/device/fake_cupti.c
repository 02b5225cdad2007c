// In place of CUPTI: a program with timeline.c in it that "executes" what stands here, so that its
// lines can be tested without a GPU.
#include <cupti.h>
#include <stdio.h>
#include <string.h>

int InitializeInjection(void);

static CUpti_BuffersCallbackRequestFunc request;
static CUpti_BuffersCallbackCompleteFunc complete;
static unsigned enabled; // kinds

static const CUpti_ActivityKernel10 kernel = {.kind = CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL,
                                              .start = 1000,
                                              .end = 3000000000000,
                                              .correlationId = 7,
                                              .graphId = 5,
                                              .streamId = 13,
                                              .gridX = 2,
                                              .gridY = 3,
                                              .gridZ = 4,
                                              .blockX = 32,
                                              .blockY = 2,
                                              .blockZ = 1,
                                              .name = "_Z4rankILi2EEvPfS0_"};
static const CUpti_ActivityMemcpy6 copy = {
    .kind = CUPTI_ACTIVITY_KIND_MEMCPY, .start = 10, .end = 20, .correlationId = 8, .streamId = 14};
static const CUpti_ActivityMemset4 fill = {.kind = CUPTI_ACTIVITY_KIND_MEMSET,
                                           .start = 30,
                                           .end = 40,
                                           .correlationId = 9,
                                           .graphId = 5,
                                           .streamId = 15};
static const CUpti_Activity *const records[] = {
    (const CUpti_Activity *)&kernel, (const CUpti_Activity *)&copy, (const CUpti_Activity *)&fill};

CUptiResult cuptiActivityRegisterCallbacks(CUpti_BuffersCallbackRequestFunc requested,
                                           CUpti_BuffersCallbackCompleteFunc completed)
{
    request = requested;
    complete = completed;
    return CUPTI_SUCCESS;
}

CUptiResult cuptiActivityEnable(CUpti_ActivityKind kind)
{
    enabled++;
    return kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL || kind == CUPTI_ACTIVITY_KIND_MEMCPY ||
                   kind == CUPTI_ACTIVITY_KIND_MEMSET
               ? CUPTI_SUCCESS
               : CUPTI_ERROR_INVALID_KIND;
}

CUptiResult cuptiActivityGetNextRecord(uint8_t *buffer, size_t used, CUpti_Activity **record)
{
    size_t next = 0;
    memcpy(&next, buffer, sizeof next);
    if (next == used)
        return CUPTI_ERROR_MAX_LIMIT_REACHED;
    *record = (CUpti_Activity *)(uintptr_t)records[next++];
    memcpy(buffer, &next, sizeof next);
    return CUPTI_SUCCESS;
}

CUptiResult cuptiActivityGetNumDroppedRecords(CUcontext context, uint32_t stream, size_t *dropped)
{
    *dropped = enabled == 3 ? 0 : 1;
    return CUPTI_SUCCESS;
}

CUptiResult cuptiActivityFlushAll(uint32_t flags)
{
    uint8_t *buffer = NULL;
    size_t size = 0, most = 0;
    request(&buffer, &size, &most);
    memset(buffer, 0, size);
    complete(NULL, 0, buffer, size, sizeof records / sizeof *records);
    return CUPTI_SUCCESS;
}

int main(void)
{
    return InitializeInjection() ? 0 : 1;
}
