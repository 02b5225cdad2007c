// The settings in a PNG, as two text chunks: `parameters` in AUTOMATIC1111's form, and `atedm` in
// JSON:
//   {"generate": a body of POST /generate that makes this picture, "model", "dtype", "backend",
//    "version"}
// The body is complete: it has the image's own seed, and every field of the pruning. In place of a
// FLOPs budget it has the ratio to which the budget was solved.
#ifndef ATEDM_PNG_SETTINGS_H
#define ATEDM_PNG_SETTINGS_H

#include "core/base/memory.h"
#include "core/model.h"
#include "core/plan.h"
#include "core/request.h"

// Both texts, owned. They do not refer to the request, so a picture can be encoded after its
// request has been destroyed.
typedef struct atedm_png_settings {
    char *parameters, *json;
} atedm_png_settings;

// Makes the texts for image `index` of a request, whose seed is seed + index. plan NULL: pruning
// off.
ATEDM_MUST_CHECK atedm_status atedm_png_settings_write(const atedm_request *request,
                                                       const atedm_plan *plan, int index,
                                                       const atedm_model_config *model,
                                                       atedm_dtype dtype, const char *backend,
                                                       atedm_png_settings *ret_settings,
                                                       atedm_error *err);
void atedm_png_settings_finish(atedm_png_settings *settings); // NULL allowed

// Encodes a picture with both text chunks, appended to `ret_png` (see atedm_png_encode).
ATEDM_MUST_CHECK atedm_status atedm_png_encode_settings(const uint8_t *rgb, int64_t width,
                                                        int64_t height,
                                                        const atedm_png_settings *settings,
                                                        atedm_buffer *ret_png, atedm_error *err);

// Does both, for image `index` of a request.
ATEDM_MUST_CHECK atedm_status atedm_png_encode_image(const uint8_t *rgb,
                                                     const atedm_request *request,
                                                     const atedm_plan *plan, int index,
                                                     const atedm_model_config *model,
                                                     atedm_dtype dtype, const char *backend,
                                                     atedm_buffer *ret_png, atedm_error *err);

#endif
