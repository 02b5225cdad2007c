// Continuous batching: see engine.h.
#include "core/engine.h"

#include "core/base/clock.h"
#include "core/preview.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(2 * ATEDM_ENGINE_MAX_BATCH <= ATEDM_UNET_MAX_SAMPLES, "batches fit into the UNet");

// Time for texts and pixels between two evaluations, in terms of the last one's, unless a single
// piece takes longer.
#define PIECES_SHARE 0.25

// Of the memory that is free at the start, what may be used where no limit is named: a driver and
// libraries take some later, others on the device may, too.
#define MEMORY_SHARE 0.9

// What the images of one size had of the device. Exists while requests of that size do.
typedef struct size_class {
    int64_t width, height;
    size_t jobs;
    double served; // FLOPs
    size_t most;   // images that fit into one evaluation, as far as is known
    struct size_class *next;
} size_class;

typedef struct job {
    uint64_t id;
    atedm_request request;
    atedm_generation *generation;
    size_class *size;
    bool encoded;
    int stepped;  // steps that all images have done
    int pictures; // that are out; images are decoded in order
    atedm_engine_report report;
    struct job *next; // in order of admission
} job;

struct atedm_engine {
    atedm_engine_options options;
    atedm_engine_hooks hooks;
    const atedm_model *model;
    atedm_pipeline *pipeline;
    job *jobs, **jobs_end;
    size_t n_jobs;
    size_class *classes;
    size_t needed; // device bytes of weights, and of what the jobs may come to need, at most
    job *encoding; // whose texts are being encoded; NULL: none
    double encoding_since;
    job *decoding; // whose image `pictures` is being decoded; NULL: none
    uint8_t *rgb;
    double decoding_since; // where the device decodes it beside other things; 0: it does not
    double evaluation_s;   // of the last one
    atedm_preview map;
    bool fitted, unfit; // there is a map; there cannot be one for now
};

// ---- life
// ------------------------------------------------------------------------------------------

static size_t default_limit(const atedm_model *model, size_t sharers)
{
    atedm_device_figures figures;
    if (!atedm_device_measure(model->device, &figures) ||
        isnan(figures.value[ATEDM_FIGURE_MEMORY_FREE]))
        return SIZE_MAX;
    double share = MEMORY_SHARE / (double)(sharers ? sharers : 1);
    return model->weight_bytes + (size_t)(share * figures.value[ATEDM_FIGURE_MEMORY_FREE]);
}

atedm_status atedm_engine_create(const atedm_model *model, const atedm_engine_options *options,
                                 const atedm_engine_hooks *hooks, atedm_engine **ret_engine,
                                 atedm_error *err)
{
    if (options->max_batch < 1 || options->max_batch > ATEDM_ENGINE_MAX_BATCH ||
        options->max_requests < 1)
        return atedm_error_set(err, ATEDM_ERR_INVALID, "an engine of %zu images and %zu requests",
                               options->max_batch, options->max_requests);
    atedm_engine *e = calloc(1, sizeof *e);
    if (!e)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for an engine");
    e->options = *options;
    e->hooks = *hooks;
    e->model = model;
    e->jobs_end = &e->jobs;
    atedm_status status = atedm_pipeline_create(model, &e->pipeline, err);
    if (status) {
        free(e);
        return status;
    }
    if (!e->options.memory_limit)
        e->options.memory_limit = default_limit(model, options->sharers);
    *ret_engine = e;
    return ATEDM_OK;
}

static void free_job(job *j)
{
    atedm_generation_destroy(j->generation);
    atedm_request_finish(&j->request);
    free(j);
}

void atedm_engine_destroy(atedm_engine *e)
{
    if (!e)
        return;
    if (e->encoding)
        atedm_pipeline_encode_abort(e->pipeline);
    if (e->decoding)
        atedm_pipeline_decode_abort(e->pipeline);
    while (e->jobs) {
        job *j = e->jobs;
        e->jobs = j->next;
        free_job(j);
    }
    while (e->classes) {
        size_class *c = e->classes;
        e->classes = c->next;
        free(c);
    }
    free(e->rgb);
    atedm_pipeline_destroy(e->pipeline);
    free(e);
}

uint64_t atedm_engine_flops(const atedm_engine *e)
{
    atedm_op_counts counts[3];
    atedm_pipeline_counts(e->pipeline, counts);
    uint64_t flops = 0;
    for (int i = 0; i < 3; i++)
        flops += atedm_op_counts_flops(&counts[i]);
    return flops;
}

size_t atedm_engine_requests(const atedm_engine *e)
{
    return e->n_jobs;
}

const atedm_repeat_figures *atedm_engine_repeats(const atedm_engine *e)
{
    return atedm_pipeline_repeats(e->pipeline);
}

size_t atedm_engine_memory(const atedm_engine *e)
{
    size_t bytes = atedm_pipeline_device_memory(e->pipeline);
    for (const job *j = e->jobs; j; j = j->next)
        bytes += atedm_generation_memory(j->generation);
    return bytes;
}

// ---- sizes
// -----------------------------------------------------------------------------------------

static size_class *class_of(const atedm_engine *e, const atedm_request *request)
{
    size_class *c = e->classes;
    while (c && (c->width != request->width || c->height != request->height))
        c = c->next;
    return c;
}

// The class of the request's size with one more job; NULL where there is no memory. A new one
// starts level with the least served, so that it has no claim on the past.
static size_class *join_class(atedm_engine *e, const atedm_request *request)
{
    size_class *c = class_of(e, request);
    if (!c) {
        if (!(c = calloc(1, sizeof *c)))
            return NULL;
        c->width = request->width;
        c->height = request->height;
        c->most = e->options.max_batch;
        for (const size_class *other = e->classes; other; other = other->next)
            c->served = c->served > 0 ? fmin(c->served, other->served) : other->served;
        c->next = e->classes;
        e->classes = c;
    }
    c->jobs++;
    return c;
}

static void leave_class(atedm_engine *e, size_class *c)
{
    if (--c->jobs)
        return;
    size_class **place = &e->classes;
    while (*place && *place != c)
        place = &(*place)->next;
    *place = c->next;
    free(c);
}

// ---- jobs come and go
// ------------------------------------------------------------------------------

// Scratch memory that evaluations of the class may come to need: that of as many of its images as
// go into one.
static size_t class_scratch(const atedm_engine *e, const size_class *c)
{
    size_t images = 0, bytes = 0, largest = 0;
    for (const job *j = e->jobs; j; j = j->next) {
        if (j->size != c)
            continue;
        size_t need = atedm_generation_scratch(j->generation).steps;
        largest = need > largest ? need : largest;
        images += (size_t)j->request.num_images;
        bytes += need * (size_t)j->request.num_images;
    }
    return images > e->options.max_batch ? largest * e->options.max_batch : bytes;
}

// Scratch memory that all jobs together may come to need.
static atedm_scratch_need scratch_needed(const atedm_engine *e)
{
    atedm_scratch_need most = {0};
    for (const size_class *c = e->classes; c; c = c->next) {
        size_t need = class_scratch(e, c);
        most.steps = need > most.steps ? need : most.steps;
    }
    for (const job *j = e->jobs; j; j = j->next) {
        atedm_scratch_need need = atedm_generation_scratch(j->generation);
        most.text = need.text > most.text ? need.text : most.text;
        most.vae = need.vae > most.vae ? need.vae : most.vae;
    }
    return most;
}

// What is only kept to be quick goes where it would be too much.
static void limit_spare(atedm_engine *e)
{
    if (atedm_pipeline_spare(e->pipeline) > e->options.memory_limit - e->needed)
        atedm_pipeline_forget(e->pipeline);
}

// The device has to have room for all that the jobs may come to need, and gives it now.
static atedm_status take_memory(atedm_engine *e, atedm_error *err)
{
    atedm_scratch_need scratch = scratch_needed(e);
    size_t bytes = e->model->weight_bytes + scratch.steps + scratch.text + scratch.vae;
    for (const job *j = e->jobs; j; j = j->next)
        bytes += atedm_generation_memory(j->generation);
    if (bytes > e->options.memory_limit)
        return atedm_error_set(err, ATEDM_ERR_NOMEM,
                               "the request does not fit into %zu bytes of device memory",
                               e->options.memory_limit);
    e->needed = bytes;
    limit_spare(e);
    return atedm_pipeline_prepare(e->pipeline, scratch, err);
}

static void append(atedm_engine *e, job *j)
{
    *e->jobs_end = j;
    e->jobs_end = &j->next;
    e->n_jobs++;
}

// Takes the job out and frees it.
static void leave(atedm_engine *e, job *j)
{
    job **place = &e->jobs;
    while (*place && *place != j)
        place = &(*place)->next;
    if (!*place)
        return;
    *place = j->next;
    if (!j->next)
        e->jobs_end = place;
    e->n_jobs--;
    if (e->encoding == j) {
        atedm_pipeline_encode_abort(e->pipeline);
        e->encoding = NULL;
    }
    if (e->decoding == j) {
        atedm_pipeline_decode_abort(e->pipeline);
        free(e->rgb);
        e->rgb = NULL;
        e->decoding = NULL;
        e->decoding_since = 0;
    }
    leave_class(e, j->size);
    free_job(j);
}

atedm_status atedm_engine_admit(atedm_engine *e, uint64_t id, atedm_request *take_request,
                                atedm_error *err)
{
    if (e->n_jobs >= e->options.max_requests)
        return atedm_error_set(err, ATEDM_ERR_LIMIT, "%zu requests run already", e->n_jobs);
    atedm_status refusal = e->n_jobs ? ATEDM_ERR_LIMIT : ATEDM_ERR_NOMEM; // may fit later
    job *j = calloc(1, sizeof *j);
    if (!j)
        return atedm_error_set(err, refusal, "no memory for a request");
    j->id = id;
    j->request = *take_request; // given back unless all goes well
    atedm_status status =
        atedm_generation_create(e->pipeline, &j->request, NULL, NULL, NULL, &j->generation, err);
    if (!status && !(j->size = join_class(e, &j->request)))
        status = atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a request");
    if (status) {
        atedm_generation_destroy(j->generation);
        free(j);
        return status == ATEDM_ERR_NOMEM ? refusal : status;
    }
    append(e, j);
    status = take_memory(e, err);
    if (!status) {
        *take_request = (atedm_request){0};
        return ATEDM_OK;
    }
    j->request = (atedm_request){0};
    leave(e, j);
    return status == ATEDM_ERR_NOMEM ? refusal : status;
}

bool atedm_engine_cancel(atedm_engine *e, uint64_t id)
{
    for (job *j = e->jobs; j; j = j->next)
        if (j->id == id) {
            leave(e, j);
            return true;
        }
    return false;
}

void atedm_engine_watch(atedm_engine *e, uint64_t id, bool on)
{
    job *j = e->jobs;
    while (j && j->id != id)
        j = j->next;
    e->unfit = false;
    if (j && atedm_generation_watch(j->generation, on, NULL))
        return; // no memory, no previews
}

static void fail(atedm_engine *e, job *j, atedm_status status, const atedm_error *error)
{
    e->hooks.failed(e->hooks.user, j->id, status, error);
    leave(e, j);
}

// ---- texts and pixels
// ------------------------------------------------------------------------------

static void end_encoding(atedm_engine *e)
{
    atedm_error error = {0};
    job *j = e->encoding;
    atedm_status status = atedm_pipeline_encode_end(e->pipeline, &error);
    e->encoding = NULL;
    j->report.timing.text_encoder_s = atedm_clock_monotonic() - e->encoding_since;
    j->encoded = true;
    if (status)
        fail(e, j, status, &error);
}

// Texts that the device has not begun with, or is done with. Whether there were any.
static bool encode(atedm_engine *e)
{
    job *j = e->jobs;
    while (j && j->encoded)
        j = j->next;
    if (!e->encoding && j) {
        atedm_error error = {0};
        e->encoding_since = atedm_clock_monotonic();
        atedm_status status = atedm_pipeline_encode_begin(e->pipeline, j->generation, &error);
        if (status) {
            fail(e, j, status, &error);
            return true;
        }
        e->encoding = j;
    } else if (!e->encoding || atedm_pipeline_encode_busy(e->pipeline)) {
        return false;
    }
    if (!atedm_pipeline_encode_busy(e->pipeline))
        end_encoding(e);
    return true;
}

static bool is_drawn(const job *j, int image)
{
    return atedm_generation_steps_done(j->generation, image) == j->request.steps;
}

static void finish(atedm_engine *e, job *j)
{
    atedm_generation_counts(j->generation, j->report.counts);
    for (int which = 0; which < 2; which++)
        j->report.encoded[which] = atedm_generation_encoded(j->generation, which);
    e->hooks.done(e->hooks.user, j->id, &j->report);
    leave(e, j);
}

// The next piece of the image that is being decoded, or the first of job j's next one. Waits where
// the device has begun to decode it by itself.
static void decode(atedm_engine *e, job *j)
{
    atedm_error error = {0};
    atedm_status status = ATEDM_OK;
    bool done = false;
    double start = e->decoding_since > 0 ? e->decoding_since : atedm_clock_monotonic();
    e->decoding_since = 0;
    if (!e->decoding) {
        e->rgb = malloc(3 * (size_t)(j->request.width * j->request.height));
        status = e->rgb ? atedm_pipeline_decode_begin(
                              e->pipeline, &(atedm_lane){j->generation, j->pictures}, &error)
                        : atedm_error_set(&error, ATEDM_ERR_NOMEM, "no memory for a picture");
        if (!status)
            e->decoding = j;
        if (!status && atedm_pipeline_decode_busy(e->pipeline)) {
            e->decoding_since = start;
            return;
        }
    }
    if (!status)
        status = atedm_pipeline_decode_advance(e->pipeline, e->rgb, &done, &error);
    j->report.timing.vae_s += atedm_clock_monotonic() - start;
    if (status || done)
        e->decoding = NULL;
    if (!done && !status)
        return;
    uint8_t *rgb = e->rgb;
    e->rgb = NULL;
    if (status) {
        free(rgb);
        fail(e, j, status, &error);
        return;
    }
    e->hooks.image(e->hooks.user, j->id, j->pictures++, &j->request,
                   atedm_generation_plan(j->generation), rgb);
    if (j->pictures == j->request.num_images)
        finish(e, j);
}

// Texts first: they give the next evaluation more to do.
static bool do_short_piece(atedm_engine *e)
{
    if (encode(e))
        return true;
    if (e->decoding) {
        bool busy = atedm_pipeline_decode_busy(e->pipeline);
        if (!busy)
            decode(e, e->decoding);
        return !busy;
    }
    for (job *j = e->jobs; j; j = j->next)
        if (is_drawn(j, j->pictures)) {
            decode(e, j);
            return true;
        }
    return false;
}

// ---- steps
// -----------------------------------------------------------------------------------------

// The images of the class that have steps left, of the first admitted requests: as many as go into
// one evaluation.
static size_t choose_lanes(const atedm_engine *e, const size_class *c,
                           atedm_lane ret_lanes[ATEDM_ENGINE_MAX_BATCH],
                           job *ret_jobs[ATEDM_ENGINE_MAX_BATCH])
{
    size_t n = 0;
    for (job *j = e->jobs; j; j = j->next) {
        if (!j->encoded || j->size != c)
            continue;
        for (int i = 0; i < j->request.num_images && n < c->most; i++)
            if (!is_drawn(j, i)) {
                ret_jobs[n] = j;
                ret_lanes[n++] = (atedm_lane){j->generation, i};
            }
    }
    return n;
}

static bool has_steps_left(const atedm_engine *e, const size_class *c)
{
    for (const job *j = e->jobs; j; j = j->next)
        if (j->encoded && j->size == c && !is_drawn(j, j->request.num_images - 1))
            return true;
    return false;
}

static size_class *least_served(const atedm_engine *e)
{
    size_class *least = NULL;
    for (size_class *c = e->classes; c; c = c->next)
        if ((!least || c->served < least->served) && has_steps_left(e, c))
            least = c;
    return least;
}

// Notes what the evaluation was for the job of lanes first .. last - 1.
static void account(atedm_engine *e, job *j, const atedm_lane *lanes, size_t first, size_t last,
                    size_t batch, double seconds)
{
    atedm_engine_report *r = &j->report;
    int step = -1;
    for (size_t i = first; i < last; i++) {
        int done = atedm_generation_steps_done(j->generation, lanes[i].image) - 1;
        if (done != step) // images of a request that take turns may be at different steps
            r->timing.steps_s[done] += seconds;
        step = done;
    }
    r->timing.denoise_s += seconds;
    r->evaluations++;
    r->batch_images += batch;
    r->max_batch = batch > r->max_batch ? batch : r->max_batch;
    // Images are chosen in order: none is behind the last.
    int all = atedm_generation_steps_done(j->generation, j->request.num_images - 1);
    while (j->stepped < all)
        e->hooks.stepped(e->hooks.user, j->id, ++j->stepped);
}

// At the first preview, between two evaluations: what it takes on the device is given back.
static bool fit_map(atedm_engine *e)
{
    size_t held = atedm_engine_memory(e), limit = e->options.memory_limit;
    if (!e->fitted && !e->unfit)
        e->fitted = !atedm_preview_fit(e->model, limit > held ? limit - held : 0, &e->map, NULL);
    e->unfit = !e->fitted;
    return e->fitted;
}

// Of image 0, where it took part and somebody watches it.
static void preview(atedm_engine *e, const job *j, const atedm_lane *first)
{
    const float *latents = first->image == 0 ? atedm_generation_clean(j->generation) : NULL;
    if (!latents || !fit_map(e))
        return;
    int64_t h, w;
    atedm_generation_latent_size(j->generation, &h, &w);
    uint8_t *rgb = malloc(3 * (size_t)(h * w));
    if (!rgb)
        return;
    atedm_preview_render(&e->map, latents, h, w, rgb);
    e->hooks.preview(e->hooks.user, j->id, atedm_generation_steps_done(j->generation, 0), w, h,
                     rgb);
}

// The device has no room for n images at once: fewer from now on, or the request that does not even
// fit alone ends.
static void shrink(atedm_engine *e, size_class *c, size_t n, job *only, atedm_status status,
                   const atedm_error *error)
{
    if (status == ATEDM_ERR_NOMEM && n > 1)
        c->most = n / 2;
    else
        fail(e, only, status, error);
}

static void evaluate(atedm_engine *e, size_class *c)
{
    atedm_lane lanes[ATEDM_ENGINE_MAX_BATCH];
    job *jobs[ATEDM_ENGINE_MAX_BATCH] = {0};
    atedm_error error = {0};
    size_t n = choose_lanes(e, c, lanes, jobs);
    if (n == 0)
        return;
    uint64_t before = atedm_engine_flops(e);
    double start = atedm_clock_monotonic();
    atedm_status status = atedm_pipeline_step(e->pipeline, lanes, n, &error);
    double seconds = atedm_clock_monotonic() - start;
    if (status) {
        shrink(e, c, n, jobs[0], status, &error);
        return;
    }
    limit_spare(e); // there may be a recording more
    c->served += (double)(atedm_engine_flops(e) - before);
    e->evaluation_s = seconds;
    e->hooks.evaluated(e->hooks.user, n, seconds);
    for (size_t first = 0, last; first < n; first = last) {
        for (last = first + 1; last < n && jobs[last] == jobs[first]; last++)
            ;
        account(e, jobs[first], lanes, first, last, n, seconds);
        preview(e, jobs[first], &lanes[first]);
    }
}

// At least one piece, and as many as take no longer than a share of an evaluation: pictures of a
// small size are not to wait for a large one's steps piece by piece.
static bool do_short_pieces(atedm_engine *e)
{
    double end = atedm_clock_monotonic() + PIECES_SHARE * e->evaluation_s;
    bool any = do_short_piece(e);
    for (bool more = any; more && atedm_clock_monotonic() < end;)
        more = do_short_piece(e);
    return any;
}

bool atedm_engine_turn(atedm_engine *e)
{
    bool busy = do_short_pieces(e);
    size_class *c = least_served(e);
    if (c)
        evaluate(e, c);
    else if (!busy && e->encoding) // nothing else to do meanwhile
        end_encoding(e);
    else if (!busy && e->decoding)
        decode(e, e->decoding);
    else
        return busy;
    return true;
}
