// The settings that a PNG carries: `parameters` in the form that AUTOMATIC1111 writes, and `atedm`
// as JSON:
//   {"generate": a body of POST /generate that makes this picture, "model", "dtype", "backend",
//    "version"}
// The body is complete: it names the image's own seed, and the pruning with every field and the
// ratio that a FLOPs budget was solved to.
#ifndef ATEDM_PNG_SETTINGS_H
#define ATEDM_PNG_SETTINGS_H

#include "core/base/memory.h"
#include "core/model.h"
#include "core/plan.h"
#include "core/request.h"

// Encodes image `index` (seed + index) of a request with both text chunks, appended to `ret_png`
// (see atedm_png_encode). plan: NULL where pruning is off.
ATEDM_MUST_CHECK atedm_status atedm_png_encode_image(const uint8_t *rgb,
                                                     const atedm_request *request,
                                                     const atedm_plan *plan, int index,
                                                     const atedm_model_config *model,
                                                     atedm_dtype dtype, const char *backend,
                                                     atedm_buffer *ret_png, atedm_error *err);

#endif
