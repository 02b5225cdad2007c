// The operations on packed tokens in the cuda backend: which kernels do them, and their launches,
// ATEDM_CUDA_SPANS spans at a time.
#include "kernels/cuda/cuda.h"

#include <string.h>

// The CUDA stream that operations go to now.
static cudaStream_t queue(atedm_stream *head)
{
    const atedm_cuda_stream *s = atedm_cuda_stream_of(head);
    return s->aside.open ? s->aside.stream : s->stream;
}

// Scratch memory of the queue that operations go to now.
static void *scratch_get(atedm_cuda_stream *s, int64_t elements, size_t element)
{
    return atedm_cuda_scratch_get(
        s, s->aside.open ? ATEDM_CUDA_SCRATCH_ASIDE : ATEDM_CUDA_SCRATCH_SUMS, elements, element);
}

// How many of the spans from `first` on a launch takes.
static int32_t take(int64_t n_spans, int64_t first)
{
    return n_spans - first < ATEDM_CUDA_SPANS ? (int32_t)(n_spans - first) : ATEDM_CUDA_SPANS;
}

typedef cudaError_t (*attention_fn)(atedm_dtype act, const atedm_attention_args *args,
                                    const atedm_cuda_spans *spans, cudaStream_t stream);

// Chosen by the head's size and the rows' alignment, which are the same for every sample.
static attention_fn choose_attention(atedm_dtype act, const atedm_attention_args *args)
{
    const void *rows[] = {args->q, args->k, args->v, args->o};
    const int64_t strides[] = {args->q_stride, args->k_stride, args->v_stride,
                               (int64_t)args->heads * args->head_dim};
    if (atedm_cuda_is_head64(act, args->head_dim, rows, strides, 4))
        return atedm_cuda_launch_attention64;
    if (atedm_cuda_is_head512(act, args->head_dim, rows, strides, 4))
        return atedm_cuda_launch_attention512;
    return atedm_cuda_launch_attention;
}

// Whether spans with few keys go to attention64_short.cu.
static bool is_short_apart(attention_fn launch, const atedm_attention_args *args)
{
    return launch == atedm_cuda_launch_attention64 && !args->key_bias && !args->causal;
}

// Some of the spans from *first on, as many as a launch takes: those with at most `most` keys, and
// more than `fewer`. False where none are left.
static bool next_attention(const atedm_attention_args *args, int64_t fewer, int64_t most,
                           int64_t *first, atedm_cuda_spans *some)
{
    some->n = 0;
    for (; *first < args->n_spans && some->n < ATEDM_CUDA_SPANS; ++*first) {
        const atedm_span *span = &args->spans[*first];
        if (span->nk > fewer && span->nk <= most)
            some->span[some->n++] = *span;
    }
    return some->n > 0;
}

// A span's kernel follows from its own number of keys and from what is the same for every sample:
// so it gets the same bits whichever spans are beside it.
void atedm_cuda_attention(atedm_stream *s, const atedm_attention_args *args)
{
    attention_fn launch = choose_attention(s->act, args);
    if (launch == atedm_cuda_launch_attention && args->head_dim > ATEDM_CUDA_MAX_HEAD_DIM) {
        atedm_stream_fail(s, ATEDM_ERR_UNSUPPORTED, "cuda: attention: heads of %d, at most %d",
                          args->head_dim, ATEDM_CUDA_MAX_HEAD_DIM);
        return;
    }
    const atedm_cuda_hopper *hopper = &((const atedm_cuda_device *)s->device)->hopper;
    bool is_hopper = launch == atedm_cuda_launch_attention64 && hopper->attention;
    int64_t few = is_short_apart(launch, args) ? ATEDM_CUDA_SHORT_KEYS : 0;
    atedm_cuda_spans some = {0};
    for (int64_t first = 0; !s->status && next_attention(args, 0, few, &first, &some);)
        atedm_cuda_check(s,
                         atedm_cuda_launch_attention64_short(s->act, args, &some,
                                                             hopper->multiprocessors, queue(s)),
                         "attention");
    for (int64_t first = 0; !s->status && next_attention(args, few, INT64_MAX, &first, &some);)
        atedm_cuda_check(s,
                         is_hopper
                             ? atedm_cuda_hopper_attention(hopper, s->act, args, &some, queue(s))
                             : launch(s->act, args, &some, queue(s)),
                         "attention");
}

// ---- ranking

// `rows` rounded up to whole boxes of rank64_hopper.cu's queries.
static int64_t whole_boxes(int64_t rows)
{
    return (rows + ATEDM_CUDA_HOPPER_RANK_QUERIES - 1) / ATEDM_CUDA_HOPPER_RANK_QUERIES *
           ATEDM_CUDA_HOPPER_RANK_QUERIES;
}

// Puts the spans from `first` on into the rank, as many as a launch takes, with their places in
// packed rows. Returns the most iterations that one of them may take.
static int pick_rank_spans(const atedm_rank_args *args, int64_t first, atedm_cuda_rank *ret_rank)
{
    int most = 0;
    ret_rank->n = take(args->n_spans, first);
    ret_rank->rows = ret_rank->n_keys = ret_rank->offset_rows = 0;
    for (int32_t i = 0; i < ret_rank->n; i++) {
        ret_rank->span[i] = args->spans[first + i];
        ret_rank->params[i] = args->params[first + i];
        ret_rank->span_at[i] = ret_rank->rows;
        ret_rank->key_at[i] = ret_rank->n_keys;
        ret_rank->offset_at[i] = ret_rank->offset_rows;
        ret_rank->rows += ret_rank->span[i].nq;
        ret_rank->offset_rows += whole_boxes(ret_rank->span[i].nq);
        ret_rank->n_keys += ret_rank->span[i].nk;
        if (ret_rank->params[i].max_iterations > most)
            most = ret_rank->params[i].max_iterations;
    }
    return most;
}

// Blocks that each add up a part of a head's change: atedm_cuda_rank.change_blocks.
static int64_t count_change_blocks(const atedm_cuda_rank *rank, bool is_hopper)
{
    int64_t most = 1;
    for (int32_t i = 0; is_hopper && !rank->cross && i < rank->n; i++)
        most = rank->span[i].nk > most ? rank->span[i].nk : most;
    return (most + ATEDM_CUDA_HOPPER_KEYS - 1) / ATEDM_CUDA_HOPPER_KEYS;
}

// Points the rank's buffers into scratch memory; false after failing the stream.
static bool place_rank_buffers(atedm_cuda_stream *s, atedm_cuda_rank *rank, bool is_hopper)
{
    int64_t scores = rank->heads * rank->rows, keys = rank->cross ? rank->heads * rank->n_keys : 0;
    int64_t changes = rank->n * rank->heads * rank->change_blocks * rank->change_warps;
    int64_t offsets = is_hopper ? rank->heads * rank->offset_rows : 0;
    const int64_t words = ATEDM_CUDA_SPANS + 4;
    float *memory = scratch_get(s, 2 * (scores + offsets) + keys + changes + words, sizeof *memory);
    if (!memory)
        return false;
    rank->last = (int32_t *)(void *)memory;
    rank->taken = rank->last + ATEDM_CUDA_SPANS;
    rank->offsets[0] = memory + words; // first: tensor maps want whole vectors
    rank->offsets[1] = rank->offsets[0] + offsets;
    rank->scores[0] = rank->offsets[1] + offsets;
    rank->scores[1] = rank->scores[0] + scores;
    rank->keys = rank->scores[1] + scores;
    rank->changes = rank->keys + keys;
    return true;
}

void atedm_cuda_rank_tokens(atedm_stream *s, const atedm_rank_args *args)
{
    const void *rows[] = {args->q, args->k};
    const int64_t strides[] = {args->q_stride, args->k_stride};
    atedm_cuda_rank rank = {
        .heads = args->heads,
        .head_dim = args->head_dim,
        .cross = args->cross,
        .is_head64 = atedm_cuda_is_head64(s->act, args->head_dim, rows, strides, 2),
        .q = args->q,
        .k = args->k,
        .q_stride = args->q_stride,
        .k_stride = args->k_stride,
        .lse_stride = args->lse_stride,
        .lse = args->lse,
        .out = args->scores,
    };
    const atedm_cuda_hopper *hopper = &((const atedm_cuda_device *)s->device)->hopper;
    rank.multiprocessors = hopper->multiprocessors;
    const atedm_cuda_aside *aside = &atedm_cuda_stream_of(s)->aside;
    if (aside->open && aside->multiprocessors < rank.multiprocessors)
        rank.multiprocessors = aside->multiprocessors;
    for (int64_t first = 0; first < args->n_spans && !s->status; first += rank.n) {
        int iterations = pick_rank_spans(args, first, &rank);
        atedm_cuda_hopper_rank_maps maps;
        bool is_hopper = atedm_cuda_hopper_takes_rank(hopper, &rank);
        rank.change_blocks = count_change_blocks(&rank, is_hopper);
        rank.change_warps = is_hopper && !rank.cross ? ATEDM_CUDA_HOPPER_RANK_WARPS : 1;
        if (!place_rank_buffers(atedm_cuda_stream_of(s), &rank, is_hopper))
            return;
        bool good = !is_hopper || atedm_cuda_hopper_rank_maps_make(hopper, s->act, &rank, &maps);
        atedm_cuda_check(
            s, good ? atedm_cuda_launch_rank_begin(&rank, queue(s)) : cudaErrorInvalidValue,
            "rank_tokens");
        for (int t = 1; t <= iterations && !s->status; t++)
            atedm_cuda_check(s,
                             atedm_cuda_launch_rank_iterate(s->act, &rank, is_hopper ? &maps : NULL,
                                                            t, queue(s)),
                             "rank_tokens");
        if (!s->status)
            atedm_cuda_check(s, atedm_cuda_launch_rank_end(&rank, queue(s)), "rank_tokens");
    }
}

// ---- selection

void atedm_cuda_random_scores(atedm_stream *s, const uint64_t *draws, const float *weights,
                              float *scores, const atedm_random_span *spans, int64_t n_spans)
{
    atedm_cuda_random_spans some = {0};
    for (int64_t first = 0; first < n_spans && !s->status; first += some.n) {
        some.n = take(n_spans, first);
        memcpy(some.span, spans + first, (size_t)some.n * sizeof *some.span);
        atedm_cuda_check(s, atedm_cuda_launch_random(draws, weights, scores, &some, queue(s)),
                         "random_scores");
    }
}

void atedm_cuda_select_tokens(atedm_stream *s, const float *scores, int32_t *kept,
                              const atedm_prune_span *spans, int64_t n_spans)
{
    atedm_cuda_prune_spans some = {0};
    for (int64_t first = 0; first < n_spans && !s->status; first += some.n) {
        some.n = take(n_spans, first);
        memcpy(some.span, spans + first, (size_t)some.n * sizeof *some.span);
        atedm_cuda_check(s, atedm_cuda_launch_select(scores, kept, &some, queue(s)),
                         "select_tokens");
    }
}

// ---- sources

// The next spans of a source operation, own slots written; false at the end, or after a failure.
static bool next_sources(atedm_stream *s, const atedm_source_args *args, int64_t *first,
                         atedm_cuda_prune_spans *some)
{
    *first += some->n;
    if (*first >= args->n_spans || s->status)
        return false;
    some->n = take(args->n_spans, *first);
    memcpy(some->span, args->spans + *first, (size_t)some->n * sizeof *some->span);
    atedm_cuda_check(s, atedm_cuda_launch_source_own(args->kept, args->source, some, queue(s)),
                     "own slots");
    return !s->status;
}

static cudaError_t launch_source64(atedm_stream *s, const atedm_source_args *args,
                                   const atedm_source_map *map, const atedm_cuda_prune_spans *some)
{
    void *scratch = scratch_get(atedm_cuda_stream_of(s), atedm_cuda_source64_scratch(some), 1);
    if (!scratch)
        return cudaSuccess; // the stream has failed
    return atedm_cuda_launch_source_attention64(s->act, args->kept, args->source, map, scratch,
                                                some, queue(s));
}

void atedm_cuda_source_attention(atedm_stream *s, const atedm_source_args *args,
                                 const atedm_source_map *map)
{
    const void *rows[] = {map->q, map->k};
    const int64_t strides[] = {map->q_stride, map->k_stride};
    bool fast = atedm_cuda_is_head64(s->act, map->head_dim, rows, strides, 2);
    atedm_cuda_prune_spans some = {0};
    for (int64_t first = 0; next_sources(s, args, &first, &some);)
        atedm_cuda_check(s,
                         fast ? launch_source64(s, args, map, &some)
                              : atedm_cuda_launch_source_attention(s->act, args->kept, args->source,
                                                                   map, &some, queue(s)),
                         "source_attention");
}

// Sets first_slot, and returns how many entries of norms the spans take from there on.
static int64_t count_norms(const atedm_cuda_prune_spans *some, atedm_cuda_cosine *cosine)
{
    int64_t end = 0;
    cosine->first_slot = INT64_MAX;
    for (int32_t i = 0; i < some->n; i++) {
        const atedm_prune_span *span = &some->span[i];
        if (span->kept_first < cosine->first_slot)
            cosine->first_slot = span->kept_first;
        if (span->kept_first + span->keep > end)
            end = span->kept_first + span->keep;
    }
    return end - cosine->first_slot;
}

void atedm_cuda_source_cosine(atedm_stream *s, const atedm_source_args *args, const void *x,
                              int64_t c)
{
    bool fast = atedm_cuda_is_cosine64(s->act, x, c);
    atedm_cuda_prune_spans some = {0};
    for (int64_t first = 0; next_sources(s, args, &first, &some);) {
        atedm_cuda_cosine cosine = {.x = x, .c = c};
        int64_t n = count_norms(&some, &cosine);
        int64_t found = fast ? atedm_cuda_source64_scratch(&some) : 0;
        cosine.norms =
            scratch_get(atedm_cuda_stream_of(s), n * (int64_t)sizeof *cosine.norms + found, 1);
        if (!cosine.norms)
            return;
        atedm_cuda_check(
            s, atedm_cuda_launch_source_norms(s->act, args->kept, &cosine, &some, queue(s)),
            "source_cosine");
        atedm_cuda_check(s,
                         fast ? atedm_cuda_launch_source_cosine64(s->act, args->kept, args->source,
                                                                  &cosine, cosine.norms + n, &some,
                                                                  queue(s))
                              : atedm_cuda_launch_source_cosine(s->act, args->kept, args->source,
                                                                &cosine, &some, queue(s)),
                         "source_cosine");
    }
}

void atedm_cuda_source_nearest(atedm_stream *s, const atedm_source_args *args, const int32_t *place,
                               int64_t width)
{
    atedm_cuda_prune_spans some = {0};
    for (int64_t first = 0; next_sources(s, args, &first, &some);)
        atedm_cuda_check(s,
                         atedm_cuda_launch_source_nearest(args->kept, args->source, place, width,
                                                          &some, queue(s)),
                         "source_nearest");
}

void atedm_cuda_source_zero(atedm_stream *s, const atedm_source_args *args)
{
    atedm_cuda_prune_spans some = {0};
    for (int64_t first = 0; next_sources(s, args, &first, &some);)
        continue; // own slots are all
}

void atedm_cuda_source_weights(atedm_stream *s, const int32_t *source, const float *before,
                               float *weights, const atedm_prune_span *spans, int64_t n_spans)
{
    atedm_cuda_prune_spans some = {0};
    for (int64_t first = 0; first < n_spans && !s->status; first += some.n) {
        some.n = take(n_spans, first);
        memcpy(some.span, spans + first, (size_t)some.n * sizeof *some.span);
        atedm_cuda_check(s,
                         atedm_cuda_launch_source_weights(source, before, weights, &some, queue(s)),
                         "source_weights");
    }
}

// The next of the spans from `first` on, as many as a launch takes; false where none are left.
static bool next_gather(atedm_stream *s, const atedm_gather_span *spans, int64_t n_spans,
                        int64_t *first, atedm_cuda_gather_spans *some)
{
    *first += some->n;
    if (*first >= n_spans || s->status)
        return false;
    some->n = take(n_spans, *first);
    memcpy(some->span, spans + *first, (size_t)some->n * sizeof *some->span);
    return true;
}

void atedm_cuda_gather_rows(atedm_stream *s, const void *x, const int32_t *index, void *y,
                            size_t row_bytes, const atedm_gather_span *spans, int64_t n_spans)
{
    atedm_cuda_gather_spans some = {0};
    for (int64_t first = 0; next_gather(s, spans, n_spans, &first, &some);)
        atedm_cuda_check(s, atedm_cuda_launch_gather(x, index, y, row_bytes, &some, queue(s)),
                         "gather_rows");
}

void atedm_cuda_add_rows(atedm_stream *s, const void *x, const int32_t *index, float factor,
                         void *y, int64_t c, const atedm_gather_span *spans, int64_t n_spans)
{
    atedm_cuda_gather_spans some = {0};
    for (int64_t first = 0; next_gather(s, spans, n_spans, &first, &some);)
        atedm_cuda_check(
            s, atedm_cuda_launch_add_rows(s->act, x, index, factor, y, c, &some, queue(s)),
            "add_rows");
}
