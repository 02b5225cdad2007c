// The operations that parity knows, and how far results may be from the reference's.
#include "tests/parity/parity.h"

#define OP(n) .name = #n, .build = parity_build_##n, .run = parity_run_##n

// The operations and their bounds, which parity.h explains. Results are rounded once (1.01).
//
// F32 sums on the way may have twice the error of a plain F32 loop. Over 1e5 random dot products of
// 8 to 3000 terms, that loop's largest error is 3.5 to 5.7 units of the sum of absolute terms,
// hence 8. The bound is twice that where a residual may be the sum's first term, which then carries
// every rounding (10 units seen with oneDNN on AVX2).
//
// Intermediate values in act are legitimate in attention, whose weights P enter a product of act
// matrices, and in rank_tokens, which may keep its map in 16 bits and uses it in each iteration
// (f16 where act is bf16: an eighth of its units). They are legitimate nowhere else.
const parity_op parity_ops[] = {
    {OP(linear), .bound = {1.01, 16, 0}, .n_bench = 16},
    {OP(conv), .bound = {1.01, 16, 0}, .n_bench = 13},
    {OP(group_norm), .bound = {1.01, 8, 0}, .n_bench = 4},
    {OP(layer_norm), .bound = {1.01, 8, 0}, .n_bench = 2},
    {OP(geglu), .bound = {1.01, 4, 0}, .n_bench = 2},
    {OP(activate), .bound = {1.01, 4, 0}, .n_bench = 1},
    {OP(add), .bound = {1.01, 1, 0}, .n_bench = 1},
    {OP(upsample2), .exact = true, .n_bench = 1},
    {OP(concat), .exact = true, .n_bench = 1},
    {OP(embed_tokens), .bound = {1.01, 1, 0}, .n_bench = 1},
    {OP(sinusoid), .bound = {1.01, 1, 0}, .n_bench = 1},

    {OP(copy), .exact = true, .n_bench = 1},
    {OP(attention), .bound = {1.01, 8, 1}, .n_bench = 8},
    {OP(rank_tokens), .bound = {1.01, 8, 0.125}, .check = parity_check_rank_tokens, .n_bench = 3},
    {OP(random_scores), .bound = {1.01, 4, 0}, .n_bench = 1},
    {OP(select_tokens), .exact = true, .n_bench = 1},
    {OP(source_attention), .bound = {0, 4, 0}, .check = parity_check_source_attention,
     .n_bench = 2},
    {OP(source_cosine), .bound = {0, 8, 0}, .check = parity_check_source_cosine, .n_bench = 1},
    {OP(source_nearest), .exact = true, .n_bench = 1},
    {OP(source_zero), .exact = true, .n_bench = 1},
    {OP(source_weights), .bound = {1.01, 4, 0}, .n_bench = 1},
    {OP(gather_rows), .exact = true, .n_bench = 1},
    {OP(add_rows), .bound = {1.01, 1, 0}, .n_bench = 1},
    {OP(scale_input), .bound = {1.01, 2, 0}, .check = parity_check_scale_input, .n_bench = 1},
    {OP(sampler_step), .bound = {1.01, 4, 0}, .n_bench = 1},
    {OP(image_finish), .bound = {0, 4, 0}, .check = parity_check_image_finish, .n_bench = 1},
};
const size_t parity_n_ops = sizeof parity_ops / sizeof *parity_ops;

enum {
#define X(op, parameters, arguments, bytes) OP_##op,
    ATEDM_OPERATIONS(X)
#undef X
        N_OPERATIONS
};
_Static_assert(sizeof parity_ops / sizeof *parity_ops == N_OPERATIONS + 1,
               "every operation, and copies");
