// Continuous batching: admits and finishes requests, and runs texts and pixels between evaluations.
// See engine.h. The evaluations themselves are in engine_evaluate.c.
#include "core/base/clock.h"
#include "core/base/control_group.h"
#include "core/engine_private.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

_Static_assert(2 * ATEDM_ENGINE_MAX_BATCH <= ATEDM_UNET_MAX_SAMPLES, "batches fit into the UNet");

// Texts and pixels get this share of the last evaluation's time between two evaluations. A single
// piece may take longer.
#define PIECES_SHARE 0.25
// Pause, in ns, between two polls of the device for the ends of an evaluation and of pieces beside
// it.
#define NAP_NS 100000

// Share of the memory free at start that the engine uses if no limit is configured. The rest is for
// the driver and libraries, which allocate some later, and for other processes on the device or in
// the container.
#define MEMORY_SHARE 0.9

// ---- creating and destroying

// The memory limit, in bytes, of an engine without a configured one. A device with memory of its
// own reports how much of it is free. A device that computes in the process' memory may use what
// control groups leave to the process.
static size_t default_limit(const atedm_model *model, size_t sharers)
{
    atedm_device_figures figures;
    double left = NAN;
    if (atedm_device_measure(model->device, &figures))
        left = figures.value[ATEDM_FIGURE_MEMORY_FREE];
    if (isnan(left))
        left = atedm_memory_left();
    if (isinf(left))
        return SIZE_MAX;
    double share = MEMORY_SHARE / (double)(sharers ? sharers : 1);
    return model->weight_bytes + (size_t)(share * left);
}

atedm_status atedm_engine_create(const atedm_model *model, const atedm_engine_options *options,
                                 const atedm_engine_hooks *hooks, atedm_engine **ret_engine,
                                 atedm_error *err)
{
    if (options->max_batch < 1 || options->max_batch > ATEDM_ENGINE_MAX_BATCH ||
        options->max_requests < 1)
        return atedm_error_set(err, ATEDM_ERR_INVALID,
                               "max_batch %zu or max_requests %zu is out of range",
                               options->max_batch, options->max_requests);
    if (options->memory_limit && options->memory_limit <= model->weight_bytes)
        return atedm_error_set(err, ATEDM_ERR_INVALID,
                               "memory_limit %zu leaves nothing for requests: the weights take %zu "
                               "bytes",
                               options->memory_limit, model->weight_bytes);
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

static void free_job(atedm_engine_job *j)
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
        atedm_engine_job *j = e->jobs;
        e->jobs = j->next;
        free_job(j);
    }
    while (e->classes) {
        atedm_engine_size *c = e->classes;
        e->classes = c->next;
        free(c);
    }
    free(e->rgb);
    atedm_pipeline_destroy(e->pipeline);
    free(e);
}

uint64_t atedm_engine_flops(const atedm_engine *e)
{
    atedm_op_counts counts[ATEDM_N_STAGES];
    atedm_pipeline_counts(e->pipeline, counts);
    uint64_t flops = 0;
    for (int i = 0; i < ATEDM_N_STAGES; i++)
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
    for (const atedm_engine_job *j = e->jobs; j; j = j->next)
        bytes += atedm_generation_memory(j->generation);
    return bytes;
}

// ---- classes of image size

static atedm_engine_size *class_of(const atedm_engine *e, const atedm_request *request)
{
    atedm_engine_size *c = e->classes;
    while (c && (c->width != request->width || c->height != request->height))
        c = c->next;
    return c;
}

// Finds or creates the class of the request's size and counts one more job in it; NULL: out of
// memory. A new class starts with the share of the least served one. If it started at 0, it would
// get the device alone until it had caught up with all that the others got before it came.
static atedm_engine_size *join_class(atedm_engine *e, const atedm_request *request)
{
    atedm_engine_size *c = class_of(e, request);
    if (!c) {
        if (!(c = calloc(1, sizeof *c)))
            return NULL;
        c->width = request->width;
        c->height = request->height;
        c->most = e->options.max_batch;
        double least = INFINITY; // not 0, which may be a class's share
        for (const atedm_engine_size *other = e->classes; other; other = other->next)
            least = fmin(least, other->served);
        c->served = e->classes ? least : 0;
        c->next = e->classes;
        e->classes = c;
    }
    c->jobs++;
    return c;
}

static void leave_class(atedm_engine *e, atedm_engine_size *c)
{
    if (--c->jobs)
        return;
    atedm_engine_size **place = &e->classes;
    while (*place && *place != c)
        place = &(*place)->next;
    *place = c->next;
    free(c);
}

// ---- jobs come and go

// Scratch memory that evaluations of the class may need: as many of its images as an evaluation
// takes, each with its need; if there are more images than that, each with the largest need.
static size_t class_scratch(const atedm_engine *e, const atedm_engine_size *c)
{
    size_t images = 0, bytes = 0, largest = 0;
    for (const atedm_engine_job *j = e->jobs; j; j = j->next) {
        if (j->size != c)
            continue;
        size_t need = atedm_generation_scratch(j->generation).steps;
        largest = need > largest ? need : largest;
        images += (size_t)j->request.num_images;
        bytes += need * (size_t)j->request.num_images;
    }
    return images > e->options.max_batch ? largest * e->options.max_batch : bytes;
}

// The most scratch memory that the present jobs may need.
static atedm_scratch_need scratch_needed(const atedm_engine *e)
{
    atedm_scratch_need most = {0};
    for (const atedm_engine_size *c = e->classes; c; c = c->next) {
        size_t need = class_scratch(e, c);
        most.steps = need > most.steps ? need : most.steps;
    }
    for (const atedm_engine_job *j = e->jobs; j; j = j->next) {
        atedm_scratch_need need = atedm_generation_scratch(j->generation);
        most.text = need.text > most.text ? need.text : most.text;
        most.vae = need.vae > most.vae ? need.vae : most.vae;
    }
    return most;
}

void atedm_engine_limit_spare(atedm_engine *e)
{
    if (atedm_pipeline_spare(e->pipeline) > e->options.memory_limit - e->needed)
        atedm_pipeline_forget(e->pipeline);
}

// Makes sure that everything the present jobs may need fits into the limit, and allocates it.
static atedm_status take_memory(atedm_engine *e, atedm_error *err)
{
    atedm_scratch_need scratch = scratch_needed(e);
    size_t bytes = e->model->weight_bytes + scratch.steps + scratch.text + scratch.vae;
    for (const atedm_engine_job *j = e->jobs; j; j = j->next)
        bytes += atedm_generation_memory(j->generation);
    if (bytes > e->options.memory_limit)
        return atedm_error_set(err, ATEDM_ERR_NOMEM,
                               "the request does not fit into %zu bytes of device memory",
                               e->options.memory_limit);
    e->needed = bytes;
    atedm_engine_limit_spare(e);
    return atedm_pipeline_prepare(e->pipeline, scratch, err);
}

static void append(atedm_engine *e, atedm_engine_job *j)
{
    *e->jobs_end = j;
    e->jobs_end = &j->next;
    e->n_jobs++;
}

// Removes the job from the engine and frees it. Ends work on it that is under way.
static void leave(atedm_engine *e, atedm_engine_job *j)
{
    atedm_engine_job **place = &e->jobs;
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
    atedm_engine_evaluation_leave(e, j);
    leave_class(e, j->size);
    free_job(j);
}

atedm_status atedm_engine_admit(atedm_engine *e, uint64_t id, atedm_request *take_request,
                                atedm_error *err)
{
    if (e->n_jobs >= e->options.max_requests)
        return atedm_error_set(err, ATEDM_ERR_LIMIT, "%zu requests run already", e->n_jobs);
    // Alone, the request can never fit; with other jobs here, it may fit when they have left.
    atedm_status refusal = e->n_jobs ? ATEDM_ERR_LIMIT : ATEDM_ERR_NOMEM;
    atedm_engine_job *j = calloc(1, sizeof *j);
    if (!j)
        return atedm_error_set(err, refusal, "no memory for a request");
    j->id = id;
    j->request = *take_request; // on failure it remains the caller's
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
    for (atedm_engine_job *j = e->jobs; j; j = j->next)
        if (j->id == id) {
            leave(e, j);
            return true;
        }
    return false;
}

void atedm_engine_watch(atedm_engine *e, uint64_t id, bool on)
{
    atedm_engine_job *j = e->jobs;
    while (j && j->id != id)
        j = j->next;
    e->unfit = false;
    if (j && atedm_generation_watch(j->generation, on, NULL))
        return; // out of memory: the job runs without previews
}

void atedm_engine_fail(atedm_engine *e, atedm_engine_job *j, atedm_status status,
                       const atedm_error *error)
{
    e->hooks.failed(e->hooks.user, j->id, status, error);
    leave(e, j);
}

// ---- texts and pixels

static void end_encoding(atedm_engine *e)
{
    atedm_error error = {0};
    atedm_engine_job *j = e->encoding;
    atedm_status status = atedm_pipeline_encode_end(e->pipeline, &error);
    e->encoding = NULL;
    j->report.timing.text_encoder_s = atedm_clock_monotonic() - e->encoding_since;
    j->encoded = true;
    if (status)
        atedm_engine_fail(e, j, status, &error);
}

// Ends the encoding under way if the device has finished it. Returns whether it had.
static bool end_ready_texts(atedm_engine *e)
{
    bool ready = e->encoding && !atedm_pipeline_encode_busy(e->pipeline);
    if (ready)
        end_encoding(e);
    return ready;
}

// Begins to encode the texts of the first job that needs it, or ends the encoding that the device
// has finished. Returns whether there was anything to do.
static bool encode(atedm_engine *e)
{
    atedm_engine_job *j = e->jobs;
    if (e->encoding)
        return end_ready_texts(e);
    while (j && j->encoded)
        j = j->next;
    if (!j)
        return false;
    atedm_error error = {0};
    e->encoding_since = atedm_clock_monotonic();
    atedm_status status = atedm_pipeline_encode_begin(e->pipeline, j->generation, &error);
    if (status) {
        atedm_engine_fail(e, j, status, &error);
        return true;
    }
    e->encoding = j;
    (void)end_ready_texts(e);
    return true;
}

static void finish(atedm_engine *e, atedm_engine_job *j)
{
    atedm_generation_counts(j->generation, j->report.counts);
    for (int which = 0; which < 2; which++)
        j->report.encoded[which] = atedm_generation_encoded(j->generation, which);
    e->hooks.done(e->hooks.user, j->id, &j->report);
    leave(e, j);
}

// Decodes the next piece of the image under way, or the first piece of job j's next image. If the
// device has begun to decode on its own, this waits for it.
static void decode(atedm_engine *e, atedm_engine_job *j)
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
        atedm_engine_fail(e, j, status, &error);
        return;
    }
    e->hooks.image(e->hooks.user, j->id, j->pictures++, &j->request,
                   atedm_generation_plan(j->generation), rgb);
    if (j->pictures == j->request.num_images)
        finish(e, j);
}

// Texts come before pixels: they give the next evaluation more to do.
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
    for (atedm_engine_job *j = e->jobs; j; j = j->next)
        if (atedm_engine_is_drawn(j, j->pictures)) {
            decode(e, j);
            return true;
        }
    return false;
}

// ---- turns

// Does at least one piece, and as many as fit into a share of an evaluation's time. Otherwise small
// pictures would wait for a large one's steps after each piece.
static bool do_short_pieces(atedm_engine *e)
{
    double end = atedm_clock_monotonic() + PIECES_SHARE * e->evaluation_s;
    bool any = do_short_piece(e);
    for (bool more = any; more && atedm_clock_monotonic() < end;)
        more = do_short_piece(e);
    return any;
}

// Does pieces while an evaluation is under way, each as soon as the device has finished the one
// before. Does some even if the evaluation ends at once.
static void do_pieces_meanwhile(atedm_engine *e)
{
    const struct timespec nap = {.tv_nsec = NAP_NS};
    (void)do_short_pieces(e);
    while (atedm_pipeline_step_busy(e->pipeline)) {
        if (do_short_piece(e))
            continue;
        if (!e->encoding && !e->decoding)
            return;
        nanosleep(&nap, NULL);
    }
}

// If the device computes on its own, it should not stand idle while the host does pieces: they are
// done during an evaluation, and only texts that are ready come before it. On other devices all
// pieces come first, so that freshly encoded texts take part in the evaluation.
bool atedm_engine_turn(atedm_engine *e)
{
    bool beside = atedm_pipeline_overlaps(e->pipeline);
    bool busy = beside ? end_ready_texts(e) : do_short_pieces(e);
    if (atedm_engine_evaluation_begin(e)) {
        if (beside)
            do_pieces_meanwhile(e);
        atedm_engine_evaluation_end(e);
        return true;
    }
    if (beside && do_short_pieces(e))
        busy = true;
    if (!busy && e->encoding) // nothing to do but wait for the device
        end_encoding(e);
    else if (!busy && e->decoding)
        decode(e, e->decoding);
    else
        return busy;
    return true;
}
