// Parity: compares every operation of kernels.h on one backend (the candidate) with the reference
// backend in F32, on the same inputs, which are already rounded. It is a plain program, so that it
// runs on devices too. The same cases serve as test and benchmark.
//
// A case is one call: arrays, weights and parameters, drawn from a seed. A side is the case set up
// on one device, with each array between guard zones. `run` makes the call on a side. The results
// of both sides are compared under the operation's bounds (table in ops.c).
#ifndef ATEDM_PARITY_H
#define ATEDM_PARITY_H

#include "kernels/operations.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// ---- random numbers (SplitMix64): small, and the same everywhere

typedef struct parity_rng {
    uint64_t state;
} parity_rng;

uint64_t parity_random(parity_rng *rng);
int64_t parity_range(parity_rng *rng, int64_t low, int64_t high); // low..high, both included
bool parity_chance(parity_rng *rng, int percent);
double parity_uniform(parity_rng *rng); // [0, 1)
float parity_normal(parity_rng *rng);

// ---- cases

typedef enum parity_type { PARITY_ACT, PARITY_F32, PARITY_I32, PARITY_U8 } parity_type;
typedef enum parity_role { PARITY_IN, PARITY_OUT, PARITY_INOUT } parity_role;

typedef struct parity_array {
    const char *name;
    parity_type type;
    parity_role role;
    size_t count;      // elements
    size_t offset;     // elements between an aligned address and the first one
    float *values;     // input of ACT (rounded to act) and F32 arrays
    int32_t *ints;     // input of I32 arrays
    bool *written;     // outputs: the elements that the operation has to write; NULL: all of them
    double *magnitude; // outputs: what rounding errors are relative to; NULL: |reference|
    double *growth;    // outputs: how much errors of f32 arithmetic are amplified; NULL: 1
    double *passes;    // outputs: how often errors of intermediate values come in; NULL: 1
    bool exact;    // outputs: the reference's to the bit, also where the operation's need not be
    bool absolute; // takes part in the magnitude run: see parity_case.by_absolute
} parity_array;

// A weight, in the form that the create functions of kernels.h take. Values are exact in act.
typedef enum parity_weight_kind {
    PARITY_LINEAR,
    PARITY_CONV,
    PARITY_NORM,
    PARITY_TABLE
} parity_weight_kind;

#define PARITY_MAX_PARTS 3
typedef struct parity_weight {
    parity_weight_kind kind;
    size_t n_parts; // number of matrices; 1 except for LINEAR
    atedm_host_tensor matrix[PARITY_MAX_PARTS], bias[PARITY_MAX_PARTS];
    bool has_bias;
    int stride;
} parity_weight;

#define PARITY_MAX_ARRAYS 8
#define PARITY_MAX_WEIGHTS 2
#define PARITY_MAX_BLOCKS 96

typedef struct parity_op parity_op;
typedef struct parity_side parity_side;

// Sizes of a case. PARITY_RANDOM: random. PARITY_LARGE: random, with several tiles of tokens, heads
// of 64 and rows at aligned addresses, which few random cases have. Both are negative; numbers of
// benchmarks are not.
#define PARITY_RANDOM (-1)
#define PARITY_LARGE (-2)

typedef struct parity_case {
    const parity_op *op;
    atedm_dtype act;
    parity_rng rng;
    int bench; // which of the operation's benchmark sizes; PARITY_RANDOM, PARITY_LARGE: random ones
    parity_array arrays[PARITY_MAX_ARRAYS];
    size_t n_arrays;
    parity_weight weights[PARITY_MAX_WEIGHTS];
    size_t n_weights;
    void *params; // the operation's own struct
    // Samples of the call, each of which can be run alone and must give the same result. 1: there
    // is nothing to test.
    size_t n_parts;
    atedm_op_counts counts; // what the call has to count
    // The magnitude of outputs is the reference's result on absolute values of the weights and of
    // the arrays marked `absolute`.
    bool by_absolute;
    double bench_flops; // of benchmark cases; 0: report bytes only
    char text[256];     // sizes, for messages
    void *blocks[PARITY_MAX_BLOCKS];
    size_t n_blocks;
} parity_case;

// |candidate - reference| <= output * u(out) * |reference|
//                     + (accumulate * u(f32) * growth + intermediate * u(act) * passes) * magnitude
// with u the unit roundoff: 2^-24 of f32, 2^-8 of bf16, 2^-11 of f16.
typedef struct parity_bound {
    double output;       // rounding of the result: slightly more than 1
    double accumulate;   // f32 arithmetic on the way
    double intermediate; // values that may be kept in act on the way
} parity_bound;

struct parity_op {
    const char *name;
    void (*build)(parity_case *c);
    // Enqueues the whole call if part < 0, else its sample `part` alone.
    void (*run)(const parity_case *c, const parity_side *side, int64_t part);
    parity_bound bound;
    // Replaces the comparison by bounds. Writes the reason to `why` and returns false on failure.
    bool (*check)(const parity_case *c, const parity_side *reference, const parity_side *candidate,
                  char *why, size_t size);
    bool exact;  // results must equal the reference's in every bit
    int n_bench; // benchmark sizes
};

extern const parity_op parity_ops[];
extern const size_t parity_n_ops;

// Memory that lives as long as the case, zeroed.
void *parity_alloc(parity_case *c, size_t count, size_t size);
parity_array *parity_add(parity_case *c, const char *name, parity_type type, parity_role role,
                         size_t count);
// Input values: normally distributed around `mean`, rounded to what the array's type can hold.
void parity_fill(parity_case *c, parity_array *a, float mean, float deviation);
// Puts values that conversions may get wrong among input elements first .. first + count - 1: both
// zeros and infinities, NaN, values that overflow in f16 and bf16, subnormals of f16 and f32.
void parity_add_strange(parity_case *c, parity_array *a, size_t first, size_t count);
// A host tensor of normal values that both act and the tensor's own (random) dtype hold exactly;
// its data may be unaligned.
atedm_host_tensor parity_tensor(parity_case *c, int ndim, const int64_t *shape, float mean,
                                float deviation);
float parity_round(atedm_dtype dtype, float value);
// Cuts `rows` rows into a few parts that can be run alone: sets n_parts, returns n_parts + 1
// bounds.
int64_t *parity_partition(parity_case *c, int64_t rows);
void parity_case_finish(parity_case *c);

// ---- sides

struct parity_side {
    atedm_device *device;
    atedm_stream *stream;
    atedm_dtype act;
    bool absolute;
    void *memory[PARITY_MAX_ARRAYS]; // [device] guard, array, guard
    void *data[PARITY_MAX_ARRAYS];   // [device] first element
    atedm_weight *weights[PARITY_MAX_WEIGHTS];
    unsigned char *before[PARITY_MAX_ARRAYS]; // [host] memory as uploaded
    unsigned char *after[PARITY_MAX_ARRAYS];  // [host] memory after the run
};

// Prints and exits if a device call fails that should not.
void parity_require(atedm_status status, const atedm_error *err, const char *what);

// Sets the case up on the stream's device.
void parity_side_init(parity_side *side, const parity_case *c, atedm_stream *stream, bool absolute);
void parity_side_finish(parity_side *side, const parity_case *c);
// Waits and fetches the arrays. Returns false, with the reason in `why`, if an operation failed.
bool parity_side_fetch(parity_side *side, const parity_case *c, char *why, size_t size);
// Whether guard zones, inputs, and elements that the operation must not write are unchanged.
bool parity_side_intact(const parity_side *side, const parity_case *c, char *why, size_t size);
// Value of a fetched element of any type, as a double.
double parity_value(const parity_side *side, const parity_case *c, size_t array, size_t i);
// Address of element `i` of an array, for running a part.
void *parity_at(const parity_side *side, const parity_case *c, size_t array, int64_t i);
size_t parity_element_size(parity_type type, atedm_dtype act);
// The array's bytes within its memory: the first one, and their number.
void parity_extent(const parity_side *side, const parity_case *c, size_t array, size_t *ret_first,
                   size_t *ret_bytes, size_t *ret_total);

// ---- comparison

bool parity_compare(const parity_case *c, const parity_side *reference,
                    const parity_side *candidate, char *why, size_t size);
bool parity_close(const parity_case *c, size_t array, size_t i, double reference, double candidate);

// ---- sabotage: proves that the comparison sees the faults that it must see

typedef enum parity_sabotage {
    PARITY_SABOTAGE_NONE,
    PARITY_SABOTAGE_ELEMENT, // one output element is off
    PARITY_SABOTAGE_NAN,     // one output element is NaN (floating-point outputs)
    PARITY_SABOTAGE_BEHIND,  // the byte after an output is written
    PARITY_SABOTAGE_BEFORE,  // the byte before an output is written
    PARITY_SABOTAGE_INPUT,   // an input is changed
    PARITY_SABOTAGE_PART,    // a sample that is run alone differs in its last bit
    PARITY_SABOTAGE_COUNT,   // multiply-accumulates are miscounted
    PARITY_SABOTAGE_KINDS,
} parity_sabotage;

const char *parity_sabotage_name(parity_sabotage kind);
// Changes the fetched results of `side`. False if the kind does not apply to the case.
bool parity_sabotage_apply(parity_sabotage kind, const parity_case *c, parity_side *side,
                           parity_rng *rng);

// ---- one case

typedef struct parity_session {
    atedm_stream *reference; // ref backend, f32
    atedm_stream *candidate;
    parity_sabotage sabotage;
    bool large;       // cases are PARITY_LARGE, if the operation has such
    double yardstick; // FLOP/s that benchmarks are compared with
} parity_session;

typedef enum parity_result { PARITY_PASS, PARITY_FAIL, PARITY_NOTHING } parity_result;

// PARITY_NOTHING: the session's sabotage does not apply to this case.
parity_result parity_run_case(const parity_session *session, const parity_op *op, uint64_t seed,
                              char *why, size_t size);
// Runs a benchmark size whose call has several samples: each of them alone must give the same bits
// as in the call, and nothing else may be written.
parity_result parity_run_full_size(const parity_session *session, const parity_op *op, int size,
                                   char *why, size_t why_size);
// FLOP/s of the candidate at a benchmark size.
double parity_rate(const parity_session *session, const parity_op *op, int size);
// Prints a line for each benchmark size, or for one size if `only` is not negative.
void parity_bench(const parity_session *session, const parity_op *op, int only, bool json);

// ---- tests that are not comparisons

// Makes calls that must be refused. Returns the number of those that were not (printed).
int parity_bad_calls(atedm_stream *stream);
// Tests devices, memory and streams. Returns the number of mistakes (printed).
int parity_devices(const char *backend);

// ---- the operations: cases_*.c; atedm_copy is not in the backends' table

#define X(op, parameters, arguments, bytes)                                                        \
    void parity_build_##op(parity_case *c);                                                        \
    void parity_run_##op(const parity_case *c, const parity_side *side, int64_t part);
ATEDM_OPERATIONS(X)
X(copy, , , )
#undef X

bool parity_check_scale_input(const parity_case *c, const parity_side *reference,
                              const parity_side *candidate, char *why, size_t size);
bool parity_check_rank_tokens(const parity_case *c, const parity_side *reference,
                              const parity_side *candidate, char *why, size_t size);
bool parity_check_source_attention(const parity_case *c, const parity_side *reference,
                                   const parity_side *candidate, char *why, size_t size);
bool parity_check_source_cosine(const parity_case *c, const parity_side *reference,
                                const parity_side *candidate, char *why, size_t size);
bool parity_check_image_finish(const parity_case *c, const parity_side *reference,
                               const parity_side *candidate, char *why, size_t size);

#endif
