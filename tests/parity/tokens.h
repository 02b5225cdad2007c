// Packed tokens of several samples with their queries, keys and values, as attention, ranking and
// the search for sources take them. Shared by cases_attention.c and cases_source.c.
#ifndef ATEDM_PARITY_TOKENS_H
#define ATEDM_PARITY_TOKENS_H

#include "tests/parity/parity.h"

// Columns of one operand: array, first column, row stride.
typedef struct parity_operand {
    size_t array;
    int64_t column, stride;
} parity_operand;

typedef struct parity_tokens {
    int heads, head_dim;
    bool self; // queries and keys are the same tokens
    int64_t q_rows, k_rows;
    parity_operand q, k, v;
    size_t bias; // array of the keys' biases, 0: none
    atedm_span *spans;
    int64_t n_spans;
} parity_tokens;

// Properties of a case. most_nq: limit of tokens in a span.
typedef struct parity_tokens_wish {
    bool self, values;
    int64_t most_nq;
    int64_t bench_spans, bench_nq, bench_nk; // benchmark sizes
    int bench_heads, bench_head_dim;
    bool biased; // sometimes, proportional attention
    bool wide;   // sometimes heads of up to 512, as in the VAE
    bool text;   // few keys, as in a text, with aligned heads of 64
} parity_tokens_wish;

// Adds the arrays. Rows outside of the spans, and unused columns, are NaN, so that reading them
// shows. Spans have gaps between them and come in random order.
void parity_tokens_build(parity_case *c, parity_tokens *t, const parity_tokens_wish *wish);

// Logit of query row q and key row k, scaled and biased, and the sum of the absolute terms in it.
double parity_tokens_logit(const parity_case *c, const parity_tokens *t, int head, int64_t q,
                           int64_t k, double *ret_absolute);
// Log-sum-exp of query row `q` over n_keys keys from k0 on, and the row's largest `absolute`.
double parity_tokens_lse(const parity_case *c, const parity_tokens *t, int head, int64_t q,
                         int64_t k0, int64_t n_keys, double *ret_absolute);
// An operand's address on a side.
const void *parity_tokens_at(const parity_case *c, const parity_side *side,
                             const parity_operand *operand);
// Marks the spans' query rows in an array of rows of `width` elements as written.
void parity_tokens_mark(parity_case *c, const parity_tokens *t, parity_array *a, int64_t width);
// Adds the array "lse" [heads, stride] as an input, with the right values for queries and keys of
// the same span (approximate in a benchmark).
size_t parity_tokens_add_lse(parity_case *c, const parity_tokens *t, int64_t *ret_stride);

#endif
