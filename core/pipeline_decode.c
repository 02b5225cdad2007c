// Decodes latents to pixels, in pieces: see pipeline.h.
#include "core/pipeline_private.h"

static void finish(atedm_pipeline *p)
{
    p->decoding.generation = NULL;
    p->decoding.enqueued = false;
    atedm_arena_release(&p->vae_scratch, 0);
}

void atedm_pipeline_decode_abort(atedm_pipeline *p)
{
    // Enqueued pieces use the latents and the scratch memory, so wait for them. If one fails, the
    // failure concerns only the image that is given up.
    atedm_status status = p->decoding.enqueued ? atedm_stream_sync(p->vae_stream, NULL) : ATEDM_OK;
    (void)status;
    atedm_stream_reset_counts(p->vae_stream);
    finish(p);
}

// Enqueues the next piece and, after the last one, the conversion of its values to bytes. Returns
// whether that was the last one.
static bool advance(atedm_pipeline *p)
{
    atedm_pipeline_decoding *d = &p->decoding;
    if (atedm_vae_decoding_advance(&d->vae, d->y))
        return false;
    atedm_image_finish(p->vae_stream, d->y, d->bytes, (int64_t)d->values);
    return true;
}

atedm_status atedm_pipeline_decode_begin(atedm_pipeline *p, const atedm_lane *lane,
                                         atedm_error *err)
{
    atedm_generation *g = lane->generation;
    if (p->decoding.generation)
        return atedm_error_set(err, ATEDM_ERR_INVALID, "another image is being decoded");
    if (lane->image < 0 || lane->image >= g->images)
        return atedm_error_set(err, ATEDM_ERR_INVALID, "image %d of %lld", lane->image,
                               (long long)g->images);
    atedm_arena *arena = &p->vae_scratch;
    atedm_status status = atedm_pipeline_reserve(p, arena, g->need.vae, err);
    if (status)
        return status;
    const atedm_model *m = p->model;
    size_t values = (size_t)(g->request->width * g->request->height) * 3;
    const float *latents = atedm_generation_latents(g, lane->image);
    p->decoding = (atedm_pipeline_decoding){
        .generation = g,
        .image = lane->image,
        .values = values,
        .y = atedm_arena_take(arena, p->vae_stream, values * atedm_dtype_size(m->vae_dtype)),
        .bytes = atedm_arena_take(arena, p->vae_stream, values),
    };
    atedm_vae_decoding_init(&p->decoding.vae, m->vae, p->vae_stream, arena, latents, g->h, g->w);
    // The latents are ready: every step ends with a sync of its stream.
    if (p->overlaps) {
        while (!advance(p))
            ;
        p->decoding.enqueued = true;
    }
    return ATEDM_OK;
}

bool atedm_pipeline_decode_busy(const atedm_pipeline *p)
{
    return p->decoding.enqueued && !atedm_stream_idle(p->vae_stream);
}

atedm_status atedm_pipeline_decode_advance(atedm_pipeline *p, uint8_t *rgb, bool *ret_done,
                                           atedm_error *err)
{
    atedm_pipeline_decoding *d = &p->decoding;
    atedm_stream *s = p->vae_stream;
    bool done = d->enqueued || advance(p);
    if (done) {
        atedm_download(s, d->bytes, rgb, d->values);
        atedm_pipeline_dump_image(d->generation, d->image, d->y);
    }
    atedm_status status = atedm_stream_sync(s, err);
    if (status) {
        atedm_pipeline_decode_abort(p);
        return status;
    }
    if (done) {
        atedm_generation_count(d->generation, ATEDM_STAGE_VAE, s);
        finish(p);
    }
    *ret_done = done;
    return ATEDM_OK;
}

atedm_status atedm_generation_decode(atedm_generation *g, int image, uint8_t *rgb, atedm_error *err)
{
    atedm_status status = atedm_pipeline_decode_begin(g->p, &(atedm_lane){g, image}, err);
    bool done = false;
    while (!status && !done)
        status = atedm_pipeline_decode_advance(g->p, rgb, &done, err);
    return status;
}
