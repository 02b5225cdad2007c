// The dense operations and the sampler's: each checks its arguments, counts its
// multiply-accumulates and calls the backend. An operation over nothing (no rows, no samples) does
// nothing. Operations on packed tokens are in ops_tokens.c.
#include "kernels/check.h"

#include <inttypes.h>
#include <math.h>

// ---- copies

static bool check_copy(atedm_stream *s, const char *op, const void *from, const void *to)
{
    return (from && to) || atedm_check_fail(s, ATEDM_ERR_INVALID, op, "%s is NULL",
                                            from ? "the target" : "the source");
}

void atedm_upload(atedm_stream *s, const void *from_host, void *to_device, size_t bytes)
{
    if (bytes && atedm_check_ahead(s, "upload") && check_copy(s, "upload", from_host, to_device))
        atedm_stream_backend(s)->upload(s, from_host, to_device, bytes);
}

void atedm_download(atedm_stream *s, const void *from_device, void *to_host, size_t bytes)
{
    if (bytes && atedm_check_ahead(s, "download") &&
        check_copy(s, "download", from_device, to_host))
        atedm_stream_backend(s)->download(s, from_device, to_host, bytes);
}

void atedm_copy(atedm_stream *s, const void *from_device, void *to_device, size_t bytes)
{
    if (!bytes || !atedm_check_ahead(s, "copy") || !check_copy(s, "copy", from_device, to_device))
        return;
    const atedm_region from = {"the source", from_device, bytes},
                       to = {"the target", to_device, bytes};
    if (atedm_check_apart(s, "copy", &from, &to))
        atedm_stream_backend(s)->copy(s, from_device, to_device, bytes);
}

// ---- linear, conv

// y is apart from x, and is the residual or apart from it; the residual may be NULL.
static bool check_output(atedm_stream *s, const char *op, const atedm_region *x,
                         const atedm_region *y, const void *residual)
{
    const atedm_region r = {"residual", residual, y->bytes};
    return atedm_check_apart(s, op, x, y) && (!residual || atedm_check_same_or_apart(s, op, &r, y));
}

void atedm_linear(atedm_stream *s, const atedm_linear_args *args)
{
    static const char op[] = "linear";
    atedm_region x, y;
    if (!atedm_check_ahead(s, op) || args->rows == 0 ||
        !atedm_check_weight(s, op, args->weight, ATEDM_WEIGHT_LINEAR) ||
        !atedm_check_activation(s, op, args->activation))
        return;
    int64_t in = args->weight->in, out = args->weight->out;
    if (atedm_check_act(s, op, "x", args->x, ATEDM_DIMS(args->rows, in), &x) &&
        atedm_check_act(s, op, "y", args->y, ATEDM_DIMS(args->rows, out), &y) &&
        check_output(s, op, &x, &y, args->residual) &&
        atedm_check_count(s, op, ATEDM_DIMS(args->rows, in, out), &s->counts.linear))
        atedm_stream_backend(s)->ops.linear(s, args);
}

void atedm_conv(atedm_stream *s, const atedm_conv_args *args)
{
    static const char op[] = "conv";
    atedm_region x, y, add;
    if (!atedm_check_ahead(s, op) || args->n == 0 ||
        !atedm_check_weight(s, op, args->weight, ATEDM_WEIGHT_CONV))
        return;
    const atedm_weight *w = args->weight;
    if (!atedm_check_act(s, op, "x", args->x, ATEDM_DIMS(args->n, args->h, args->w, w->in), &x))
        return;
    int64_t ho = atedm_conv_out(args->h, w->stride), wo = atedm_conv_out(args->w, w->stride);
    if (!atedm_check_act(s, op, "y", args->y, ATEDM_DIMS(args->n, ho, wo, w->out), &y) ||
        !check_output(s, op, &x, &y, args->residual))
        return;
    if (args->channel_add && (!atedm_check_act(s, op, "channel_add", args->channel_add,
                                               ATEDM_DIMS(args->n, w->out), &add) ||
                              !atedm_check_apart(s, op, &add, &y)))
        return;
    if (atedm_check_count(s, op, ATEDM_DIMS(args->n, ho, wo, w->out, w->in, w->kernel, w->kernel),
                          &s->counts.conv))
        atedm_stream_backend(s)->ops.conv(s, args);
}

// ---- norms

void atedm_group_norm(atedm_stream *s, const atedm_group_norm_args *args)
{
    static const char op[] = "group_norm";
    atedm_region x, y;
    if (!atedm_check_ahead(s, op) || args->n == 0 ||
        !atedm_check_weight(s, op, args->weight, ATEDM_WEIGHT_NORM) ||
        !atedm_check_epsilon(s, op, args->epsilon))
        return;
    int64_t c = args->weight->in;
    if (args->groups < 1 || c % args->groups) {
        atedm_check_fail(s, ATEDM_ERR_INVALID, op, "%" PRId64 " channels in %d groups", c,
                         args->groups);
        return;
    }
    if (atedm_check_act(s, op, "x", args->x, ATEDM_DIMS(args->n, args->hw, c), &x) &&
        atedm_check_act(s, op, "y", args->y, ATEDM_DIMS(args->n, args->hw, c), &y) &&
        atedm_check_same_or_apart(s, op, &x, &y))
        atedm_stream_backend(s)->ops.group_norm(s, args);
}

void atedm_layer_norm(atedm_stream *s, const atedm_layer_norm_args *args)
{
    static const char op[] = "layer_norm";
    atedm_region x, y;
    if (!atedm_check_ahead(s, op) || args->rows == 0 ||
        !atedm_check_weight(s, op, args->weight, ATEDM_WEIGHT_NORM) ||
        !atedm_check_epsilon(s, op, args->epsilon))
        return;
    int64_t c = args->weight->in;
    if (atedm_check_act(s, op, "x", args->x, ATEDM_DIMS(args->rows, c), &x) &&
        atedm_check_act(s, op, "y", args->y, ATEDM_DIMS(args->rows, c), &y) &&
        atedm_check_same_or_apart(s, op, &x, &y))
        atedm_stream_backend(s)->ops.layer_norm(s, args);
}

// ---- element by element

void atedm_geglu(atedm_stream *s, const void *x, void *y, int64_t rows, int64_t f)
{
    static const char op[] = "geglu";
    atedm_region in, out;
    if (atedm_check_ahead(s, op) && rows != 0 &&
        atedm_check_act(s, op, "x", x, ATEDM_DIMS(rows, f, 2), &in) &&
        atedm_check_act(s, op, "y", y, ATEDM_DIMS(rows, f), &out) &&
        atedm_check_apart(s, op, &in, &out))
        atedm_stream_backend(s)->ops.geglu(s, x, y, rows, f);
}

void atedm_activate(atedm_stream *s, atedm_activation activation, const void *x, void *y,
                    int64_t count)
{
    static const char op[] = "activate";
    atedm_region in, out;
    if (atedm_check_ahead(s, op) && count != 0 && atedm_check_activation(s, op, activation) &&
        atedm_check_act(s, op, "x", x, ATEDM_DIMS(count), &in) &&
        atedm_check_act(s, op, "y", y, ATEDM_DIMS(count), &out) &&
        atedm_check_same_or_apart(s, op, &in, &out))
        atedm_stream_backend(s)->ops.activate(s, activation, x, y, count);
}

void atedm_add(atedm_stream *s, const void *a, const void *b, void *y, int64_t count)
{
    static const char op[] = "add";
    atedm_region first, second, out;
    if (atedm_check_ahead(s, op) && count != 0 &&
        atedm_check_act(s, op, "a", a, ATEDM_DIMS(count), &first) &&
        atedm_check_act(s, op, "b", b, ATEDM_DIMS(count), &second) &&
        atedm_check_act(s, op, "y", y, ATEDM_DIMS(count), &out) &&
        atedm_check_same_or_apart(s, op, &first, &out) &&
        atedm_check_same_or_apart(s, op, &second, &out))
        atedm_stream_backend(s)->ops.add(s, a, b, y, count);
}

void atedm_upsample2(atedm_stream *s, const void *x, void *y, int64_t n, int64_t h, int64_t w,
                     int64_t c)
{
    static const char op[] = "upsample2";
    atedm_region in, out;
    if (atedm_check_ahead(s, op) && n != 0 &&
        atedm_check_act(s, op, "y", y, ATEDM_DIMS(n, h, w, c), &out) &&
        atedm_check_act(s, op, "x", x, ATEDM_DIMS(n, (h + 1) / 2, (w + 1) / 2, c), &in) &&
        atedm_check_apart(s, op, &in, &out))
        atedm_stream_backend(s)->ops.upsample2(s, x, y, n, h, w, c);
}

void atedm_concat(atedm_stream *s, const void *a, int64_t ca, const void *b, int64_t cb, void *y,
                  int64_t rows)
{
    static const char op[] = "concat";
    atedm_region left, right, out;
    if (atedm_check_ahead(s, op) && rows != 0 &&
        atedm_check_act(s, op, "a", a, ATEDM_DIMS(rows, ca), &left) &&
        atedm_check_act(s, op, "b", b, ATEDM_DIMS(rows, cb), &right) &&
        atedm_check_act(s, op, "y", y, ATEDM_DIMS(rows, ca + cb), &out) &&
        atedm_check_apart(s, op, &left, &out) && atedm_check_apart(s, op, &right, &out))
        atedm_stream_backend(s)->ops.concat(s, a, ca, b, cb, y, rows);
}

// ---- embeddings

static bool check_ids(atedm_stream *s, const char *op, const int64_t *ids, int64_t rows,
                      int64_t entries)
{
    if (!ids)
        return atedm_check_fail(s, ATEDM_ERR_INVALID, op, "ids is NULL");
    for (int64_t i = 0; i < rows; i++)
        if (ids[i] < 0 || ids[i] >= entries)
            return atedm_check_fail(s, ATEDM_ERR_INVALID, op,
                                    "id %" PRId64 " is not in the table of %" PRId64 " entries",
                                    ids[i], entries);
    return true;
}

void atedm_embed_tokens(atedm_stream *s, const atedm_weight *table, const atedm_weight *position,
                        const int64_t *ids, int64_t rows, int64_t tokens, void *y)
{
    static const char op[] = "embed_tokens";
    atedm_region out;
    if (!atedm_check_ahead(s, op) || rows == 0 ||
        !atedm_check_weight(s, op, table, ATEDM_WEIGHT_TABLE) ||
        !atedm_check_weight(s, op, position, ATEDM_WEIGHT_TABLE) ||
        !atedm_check_act(s, op, "y", y, ATEDM_DIMS(rows, table->in), &out))
        return;
    if (position->in != table->in || tokens < 1 || tokens > position->out) {
        atedm_check_fail(s, ATEDM_ERR_INVALID, op,
                         "%" PRId64 " tokens of %" PRId64 " channels, positions for %" PRId64
                         " of %" PRId64,
                         tokens, table->in, position->out, position->in);
        return;
    }
    if (check_ids(s, op, ids, rows, table->out))
        atedm_stream_backend(s)->ops.embed_tokens(s, table, position, ids, rows, tokens, y);
}

void atedm_sinusoid(atedm_stream *s, const double *values, int64_t n, int64_t dim, void *y)
{
    static const char op[] = "sinusoid";
    atedm_region out;
    if (!atedm_check_ahead(s, op) || n == 0 ||
        !atedm_check_act(s, op, "y", y, ATEDM_DIMS(n, dim), &out))
        return;
    if (!values || dim % 2)
        atedm_check_fail(s, ATEDM_ERR_INVALID, op, "%s",
                         values ? "the dimension is odd" : "values is NULL");
    else
        atedm_stream_backend(s)->ops.sinusoid(s, values, n, dim, y);
}

// ---- sampler

void atedm_scale_input(atedm_stream *s, const float *x, const double *a, void *y, int64_t n,
                       int64_t count)
{
    static const char op[] = "scale_input";
    atedm_region in, out;
    if (!atedm_check_ahead(s, op) || n == 0 || count == 0 ||
        !atedm_check_tensor(s, op, "x", x, sizeof *x, ATEDM_DIMS(n, count), &in) ||
        !atedm_check_act(s, op, "y", y, ATEDM_DIMS(n, count), &out) ||
        !atedm_check_apart(s, op, &in, &out))
        return;
    if (!a)
        atedm_check_fail(s, ATEDM_ERR_INVALID, op, "a is NULL");
    else
        atedm_stream_backend(s)->ops.scale_input(s, x, a, y, n, count);
}

void atedm_sampler_step(atedm_stream *s, const atedm_step_args *args)
{
    static const char op[] = "sampler_step";
    atedm_region cond, uncond, x, history;
    if (!atedm_check_ahead(s, op) || args->count == 0 ||
        !atedm_check_act(s, op, "cond", args->cond, ATEDM_DIMS(args->count), &cond) ||
        !atedm_check_tensor(s, op, "x", args->x, sizeof *args->x, ATEDM_DIMS(args->count), &x) ||
        !atedm_check_apart(s, op, &cond, &x))
        return;
    if (args->uncond &&
        (!atedm_check_act(s, op, "uncond", args->uncond, ATEDM_DIMS(args->count), &uncond) ||
         !atedm_check_apart(s, op, &uncond, &x)))
        return;
    if (args->history &&
        (!atedm_check_tensor(s, op, "history", args->history, sizeof *args->history,
                             ATEDM_DIMS(args->count), &history) ||
         !atedm_check_apart(s, op, &history, &x) || !atedm_check_apart(s, op, &history, &cond) ||
         (args->uncond && !atedm_check_apart(s, op, &history, &uncond))))
        return;
    if (!isfinite(args->guidance_scale) || !isfinite(args->step.x) ||
        !isfinite(args->step.output) || !isfinite(args->step.earlier) ||
        !isfinite(args->step.keep_x) || !isfinite(args->step.keep_output))
        atedm_check_fail(
            s, ATEDM_ERR_INVALID, op,
            "guidance_scale %g, x %g, output %g, earlier %g, keep_x %g or keep_output %g "
            "is not a number",
            (double)args->guidance_scale, args->step.x, args->step.output, args->step.earlier,
            args->step.keep_x, args->step.keep_output);
    else
        atedm_stream_backend(s)->ops.sampler_step(s, args);
}

void atedm_image_finish(atedm_stream *s, const void *x, uint8_t *y, int64_t count)
{
    static const char op[] = "image_finish";
    atedm_region in, out;
    if (atedm_check_ahead(s, op) && count != 0 &&
        atedm_check_act(s, op, "x", x, ATEDM_DIMS(count), &in) &&
        atedm_check_tensor(s, op, "y", y, sizeof *y, ATEDM_DIMS(count), &out) &&
        atedm_check_apart(s, op, &in, &out))
        atedm_stream_backend(s)->ops.image_finish(s, x, y, count);
}
