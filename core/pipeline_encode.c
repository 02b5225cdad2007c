// Encodes a request's texts to the inputs that all its steps share: see pipeline.h.
#include "core/pipeline_private.h"

#include "core/rng.h"

#include <stdlib.h>
#include <string.h>

// Tokenizes one prompt for both encoders. `which` is 0 for the prompt, 1 for the negative one.
// g->encoded[which] becomes the smaller of the two numbers of bytes that the tokenizers took.
static atedm_status tokenize(atedm_generation *g, const char *prompt, int which, int64_t *ids[2],
                             atedm_error *err)
{
    const char *text = prompt ? prompt : "";
    size_t size = strlen(text);
    g->encoded[which] = size;
    for (int e = 0; e < 2; e++) {
        size_t cut = size;
        atedm_status status =
            atedm_tokenizer_encode(g->p->model->tokenizer[e], text, size, ids[e], &cut, err);
        if (status)
            return atedm_error_context(err, status, which ? "negative_prompt" : "prompt");
        if (cut < g->encoded[which])
            g->encoded[which] = cut;
    }
    return ATEDM_OK;
}

// Encodes `prompts` prompts. context, [device] act [prompts * tokens, cross_attention_dim]: the two
// encoders' hidden states side by side. pooled, [device] act [prompts, projection]: the second
// encoder's pooled output.
static void encode_prompts(atedm_generation *g, int64_t *const ids[2], int64_t prompts,
                           char *context, char *pooled)
{
    const atedm_model *m = g->p->model;
    atedm_stream *s = g->p->text_stream;
    atedm_arena *arena = &g->p->text_scratch;
    int64_t rows = prompts * m->context_tokens;
    size_t element = atedm_dtype_size(m->dtype), mark = atedm_arena_mark(arena);
    void *hidden[2];
    for (int e = 0; e < 2; e++) {
        int64_t width = m->config.parts.clip[e].width;
        hidden[e] = atedm_arena_take(arena, s, (size_t)(rows * width) * element);
        atedm_clip_encode(m->clip[e], s, arena, ids[e], prompts, m->context_tokens, hidden[e],
                          e == 1 ? pooled : NULL);
    }
    atedm_concat(s, hidden[0], m->config.parts.clip[0].width, hidden[1],
                 m->config.parts.clip[1].width, context, rows);
    atedm_arena_release(arena, mark);
}

static void embed_condition(atedm_generation *g, const void *pooled)
{
    const atedm_request *r = g->request;
    double ids[2 * ATEDM_UNET_TIME_IDS];
    const double one[ATEDM_UNET_TIME_IDS] = {(double)r->height, (double)r->width, 0, 0,
                                             (double)r->height, (double)r->width};
    memcpy(ids, one, sizeof one);
    memcpy(ids + ATEDM_UNET_TIME_IDS, one, sizeof one);
    const atedm_model *m = g->p->model;
    atedm_unet_embed_condition(m->unet, g->p->text_stream, &g->p->text_scratch, pooled, ids,
                               g->samples, g->condition);
    atedm_pipeline_dump_doubles(g, "add_time_ids", ids, 2,
                                (int64_t[]){g->samples, ATEDM_UNET_TIME_IDS});
}

static void finish(atedm_pipeline *p)
{
    atedm_arena_release(&p->text_scratch, 0);
    free(p->encoding.ids);
    free(p->encoding.zeros);
    p->encoding = (atedm_pipeline_encoding){0};
}

void atedm_pipeline_encode_abort(atedm_pipeline *p)
{
    // Enqueued work uses the request's memory, so wait for it. If it fails, the failure concerns
    // only the request that is given up.
    atedm_status status = atedm_stream_sync(p->text_stream, NULL);
    (void)status;
    atedm_stream_reset_counts(p->text_stream);
    finish(p);
}

// ids[e]: the tokens of both prompts for encoder e, negative before positive; positive[e]: those of
// the positive prompt alone. The rows of a guided request's results have the same order.
static void enqueue(atedm_generation *g, int64_t *const ids[2], int64_t *const positive[2])
{
    const atedm_model *m = g->p->model;
    atedm_stream *s = g->p->text_stream;
    const atedm_pipeline_encoding *e = &g->p->encoding;
    atedm_stream_reset_counts(s);
    char *context = g->context, *pooled = e->pooled;
    if (g->samples == 2 && g->zero_negative) {
        size_t element = atedm_dtype_size(m->dtype);
        size_t context_bytes =
            (size_t)(m->context_tokens * m->config.parts.unet.cross_attention_dim) * element;
        size_t pooled_bytes = (size_t)m->config.parts.clip[1].projection * element;
        atedm_upload(s, e->zeros, context, context_bytes);
        atedm_upload(s, e->zeros, pooled, pooled_bytes);
        encode_prompts(g, positive, 1, context + context_bytes, pooled + pooled_bytes);
    } else {
        encode_prompts(g, ids, g->samples, context, pooled);
    }
    atedm_generation_count(g, ATEDM_STAGE_TEXT, s);
    embed_condition(g, pooled);
    atedm_pipeline_noise_begin(g);
    atedm_generation_count(g, ATEDM_STAGE_UNET, s);
}

atedm_status atedm_pipeline_encode_begin(atedm_pipeline *p, atedm_generation *g, atedm_error *err)
{
    if (p->encoding.generation)
        return atedm_error_set(err, ATEDM_ERR_INVALID, "another request's texts are being encoded");
    const atedm_model *m = p->model;
    size_t tokens = (size_t)m->context_tokens, element = atedm_dtype_size(m->dtype);
    size_t context = tokens * (size_t)m->config.parts.unet.cross_attention_dim;
    size_t pooled = (size_t)m->config.parts.clip[1].projection;
    atedm_status status = atedm_pipeline_reserve(p, &p->text_scratch, g->need.text, err);
    if (status)
        return status;
    p->encoding = (atedm_pipeline_encoding){
        .generation = g,
        .ids = calloc(4 * tokens, sizeof *p->encoding.ids),
        .zeros = calloc(context > pooled ? context : pooled, element),
    };
    if (!p->encoding.ids || !p->encoding.zeros) {
        finish(p);
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for tokens");
    }
    int64_t *ids[2] = {p->encoding.ids, p->encoding.ids + 2 * tokens};
    size_t last = (size_t)(g->samples - 1) * tokens;
    int64_t *positive[2] = {ids[0] + last, ids[1] + last};
    status = tokenize(g, g->request->prompt, 0, positive, err);
    if (!status && g->samples == 2)
        status = tokenize(g, g->request->negative_prompt, 1, ids, err);
    if (status) {
        finish(p);
        return status;
    }
    p->encoding.pooled = atedm_arena_take(&p->text_scratch, p->text_stream, 2 * pooled * element);
    enqueue(g, ids, positive);
    return ATEDM_OK;
}

bool atedm_pipeline_encode_busy(const atedm_pipeline *p)
{
    return p->encoding.generation && !atedm_stream_idle(p->text_stream);
}

atedm_status atedm_pipeline_encode_end(atedm_pipeline *p, atedm_error *err)
{
    const atedm_pipeline_encoding *e = &p->encoding;
    int64_t *ids[2] = {e->ids, e->ids + 2 * p->model->context_tokens};
    if (!atedm_stream_failed(p->text_stream))
        atedm_pipeline_dump_encoded(e->generation, ids, e->pooled);
    atedm_status status = atedm_stream_sync(p->text_stream, err);
    finish(p);
    return status;
}

atedm_status atedm_generation_encode(atedm_generation *g, atedm_error *err)
{
    atedm_status status = atedm_pipeline_encode_begin(g->p, g, err);
    return status ? status : atedm_pipeline_encode_end(g->p, err);
}
