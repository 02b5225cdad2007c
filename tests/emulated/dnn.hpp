// What the files of the fake cuDNN share: descriptors as callers fill them in, the operations that
// they come to, and the engines. C++, only for tests/emulated.
#ifndef ATEDM_TESTS_EMULATED_DNN_HPP
#define ATEDM_TESTS_EMULATED_DNN_HPP

#include "tests/emulated/fallback/cudnn_graph.h"

#include <map>
#include <vector>

namespace dnn
{

// Ends the program: whoever calls cuDNN like that would be refused, or worse.
[[noreturn]] void misuse(const char *format, ...) __attribute__((format(printf, 1, 2)));

struct attribute {
    int64_t count;
    std::vector<char> bytes;
};

// The engines, in the order in which heuristics propose them: those that will not do come first.
enum engine {
    DIFFERS_EACH_TIME,
    SUMS_IN_16_BITS,
    WINOGRAD,
    COMPILES,
    REFUSES_WHEN_PLANNED,
    WANTS_TOO_MUCH,
    RIGHT,
    OF_LARGER_BATCHES, // takes the place of RIGHT: adds in another order
    NO_ENGINE,
};
int64_t workspace_of(engine e);

struct descriptor {
    cudnnBackendDescriptorType_t type{};
    bool finalized = false;
    std::map<int, attribute> attributes;
    engine chosen = NO_ENGINE;         // of configurations, engines, plans
    const descriptor *graph = nullptr; // of heuristics, configurations, engines, plans

    template <class T> const T *values(int name) const
    {
        auto it = attributes.find(name);
        return it == attributes.end() ? nullptr : (const T *)it->second.bytes.data();
    }
    const descriptor *part(int name) const
    {
        return *values<const descriptor *>(name);
    }
    std::vector<const descriptor *> parts(int name) const
    {
        auto *p = values<const descriptor *>(name);
        return {p, p + attributes.at(name).count};
    }
};

struct tensor {
    int64_t uid, align, dimensions[4], strides[4]; // n, c, h, w
    cudnnDataType_t type;
    bool is_virtual;
    explicit tensor(const descriptor &d);
    int64_t extent() const; // elements from the first to behind the last
    size_t element() const
    {
        return type == CUDNN_DATA_FLOAT ? 4 : 2;
    }
};

// y = x * w, or y = x + w.
struct operation {
    bool is_convolution;
    tensor x, w, y;
    int64_t stride = 1, pad = 0;
    explicit operation(const descriptor &d);
};

// Dimensions, layouts and the flow from one operation to the next; ends the program on a mistake.
void check(const operation &o);
std::vector<operation> check_graph(const descriptor &graph);

// A plan with its operands, by unique id.
struct run {
    std::vector<operation> operations;
    std::map<int64_t, void *> operands;
    void *workspace;
    engine chosen;
    int number; // of this run, among all
    void compute() const;
};

} // namespace dnn

#endif
