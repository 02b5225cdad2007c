// The fake cuDNN's engines: which there are for a graph, and how their kernels differ. See dnn.cpp.
// C++.
//
// Like the real one it has graphs that it does not take, some for which it has only something slow,
// and kernels that add in another order where there are more samples. Which of these is a matter of
// kind_of, so that parity's shapes meet them all.
#include "tests/emulated/dnn.hpp"

#include <cstdlib>
#include <cstring>

namespace dnn
{

// By the number of output channels / 8.
enum kind {
    ALL,               // takes values of channels, and batches
    UNKNOWN_KNOB,      // a setting that cuts sums in batches
    COMPILES_CHANNELS, // values of channels only with a kernel that it compiles
    ALL_TOO,
    SUMS_OF_PARTS, // wants a workspace for them in batches
    NO_ENGINE_FOR_BATCH,
    SPLITS,         // a setting that says so
    NO_PLAN_FROM_4, // samples on
};

static kind kind_of(const std::vector<operation> &operations)
{
    return (kind)(operations[0].w.dimensions[0] / 8 % 8);
}

static int64_t samples_of(const std::vector<operation> &operations)
{
    return operations[0].x.dimensions[0];
}

// Values of channels, of each sample or before others are added.
static bool has_channels(const std::vector<operation> &operations)
{
    for (size_t i = 1; i < operations.size(); i++) {
        const int64_t *d = operations[i].w.dimensions;
        if (d[2] * d[3] == 1 && (d[0] != 1 || i < operations.size() - 1))
            return operations[0].y.dimensions[2] * operations[0].y.dimensions[3] > 1;
    }
    return false;
}

// Whether there is a kernel, as the real one has them: it adds one tensor as large as y, then one
// vector of channels, both of x's type.
static bool is_ready(const std::vector<operation> &operations)
{
    size_t n = operations.size();
    if (has_channels(operations))
        return kind_of(operations) == ALL || kind_of(operations) == ALL_TOO;
    for (size_t i = 1; i < n; i++) {
        const tensor &term = operations[i].w, &y = operations[i].y;
        bool is_vector = term.dimensions[2] * term.dimensions[3] == 1;
        bool is_whole =
            term.dimensions[2] == y.dimensions[2] && term.dimensions[3] == y.dimensions[3];
        if (term.type != operations[0].x.type || !(i == n - 1 ? is_vector : is_whole))
            return false;
    }
    return n <= 3;
}

static configuration right(const std::vector<operation> &operations)
{
    kind k = kind_of(operations);
    configuration c = {samples_of(operations) == 1 ? RIGHT : OF_LARGER_BATCHES, {}};
    c.knobs = {{CUDNN_KNOB_TYPE_TILE_SIZE, 3}, {CUDNN_KNOB_TYPE_SPLIT_K_SLC, k == SPLITS ? 2 : 1}};
    if (k == UNKNOWN_KNOB)
        c.knobs.push_back({CUDNN_KNOB_TYPE_STREAM_K, 1});
    return c;
}

std::vector<configuration> proposals(const std::vector<operation> &operations,
                                     cudnnBackendHeurMode_t mode)
{
    const tensor &w = operations[0].w;
    if (w.strides[0] != w.dimensions[1] * w.dimensions[2] * w.dimensions[3])
        return {};
    if (!is_ready(operations))
        return {{COMPILES, {{CUDNN_KNOB_TYPE_STAGES, 3}}}};
    if (mode == CUDNN_HEUR_MODE_FALLBACK)
        return {right(operations)};
    if (w.dimensions[0] % 16)
        return {};
    std::vector<configuration> list;
    for (int e = DIFFERS_EACH_TIME; e < RIGHT; e++)
        list.push_back({(engine)e, {{CUDNN_KNOB_TYPE_STAGES, 3}}});
    list.push_back(right(operations));
    return list;
}

std::vector<cudnnBackendNumericalNote_t> notes_of(engine e)
{
    switch (e) {
    case DIFFERS_EACH_TIME:
        return {CUDNN_NUMERICAL_NOTE_TENSOR_CORE, CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC};
    case SUMS_IN_16_BITS:
        return {CUDNN_NUMERICAL_NOTE_TENSOR_CORE, CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION};
    case WINOGRAD:
        return {CUDNN_NUMERICAL_NOTE_WINOGRAD, CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4};
    default:
        return {CUDNN_NUMERICAL_NOTE_TENSOR_CORE};
    }
}

int64_t global_index(engine e)
{
    return 40 + e;
}

engine engine_at(int64_t index)
{
    return index >= 40 && index < global_index(NO_ENGINE) ? (engine)(index - 40) : NO_ENGINE;
}

bool has_engine(const std::vector<operation> &operations, int64_t index)
{
    engine e = engine_at(index);
    if (e == NO_ENGINE || (e != COMPILES && !is_ready(operations)))
        return false;
    return kind_of(operations) != NO_ENGINE_FOR_BATCH || samples_of(operations) == 1;
}

bool can_plan(const std::vector<operation> &operations, const configuration &kernel)
{
    const char *fuse = getenv("ATEDM_CUDA_CONV_FUSE");
    if (kernel.chosen == COMPILES &&
        !(fuse && strcmp(fuse, "channel") == 0 && has_channels(operations)))
        misuse("a plan that waits for a compiler");
    return kernel.chosen != REFUSES_WHEN_PLANNED &&
           (kind_of(operations) != NO_PLAN_FROM_4 || samples_of(operations) < 4);
}

int64_t workspace_of(const std::vector<operation> &operations, const configuration &kernel)
{
    if (kernel.chosen == WANTS_TOO_MUCH)
        return (int64_t)1 << 30;
    return kind_of(operations) == SUMS_OF_PARTS && samples_of(operations) > 1 ? 1 << 16 : 131;
}

bool is_another(const std::vector<operation> &operations, const configuration &kernel)
{
    std::vector<knob> wanted = right(operations).knobs;
    bool same = kernel.knobs.size() == wanted.size();
    for (size_t i = 0; same && i < wanted.size(); i++)
        same = kernel.knobs[i].type == wanted[i].type && kernel.knobs[i].value == wanted[i].value;
    kind k = kind_of(operations);
    bool cuts = k == UNKNOWN_KNOB || k == SUMS_OF_PARTS || k == SPLITS;
    return kernel.chosen == OF_LARGER_BATCHES ||
           (kernel.chosen == RIGHT && (!same || (cuts && samples_of(operations) > 1)));
}

} // namespace dnn
