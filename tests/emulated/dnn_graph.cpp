// How the fake cuDNN (dnn.cpp) treats a graph of operations: it checks that the graph is valid, and
// computes its result. C++.
#include "tests/emulated/dnn.hpp"

#include "tests/emulated/fallback/cuda_bf16.h"
#include "tests/emulated/fallback/cuda_fp16.h"

#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <set>

namespace dnn
{

void misuse(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "emulated cuDNN: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    abort();
}

int64_t workspace_of(engine e)
{
    return e == WANTS_TOO_MUCH ? (int64_t)1 << 30 : (int64_t)1 << 16;
}

tensor::tensor(const descriptor &d)
    : uid(*d.values<int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID)),
      align(*d.values<int64_t>(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT)),
      type(*d.values<cudnnDataType_t>(CUDNN_ATTR_TENSOR_DATA_TYPE)),
      is_virtual(*d.values<bool>(CUDNN_ATTR_TENSOR_IS_VIRTUAL))
{
    for (int i = 0; i < 4; i++) {
        dimensions[i] = d.values<int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS)[i];
        strides[i] = d.values<int64_t>(CUDNN_ATTR_TENSOR_STRIDES)[i];
    }
    int64_t c = dimensions[1], h = dimensions[2], w = dimensions[3];
    if (dimensions[0] < 1 || c < 1 || h < 1 || w < 1)
        misuse("tensor %lld has no elements", (long long)uid);
    if (strides[1] != 1 || strides[3] != c || strides[2] != c * w || strides[0] < c * h * w)
        misuse("tensor %lld is not channels-last", (long long)uid);
    if (align < (int64_t)element() || align & (align - 1))
        misuse("tensor %lld: alignment %lld", (long long)uid, (long long)align);
}

int64_t tensor::extent() const
{
    return (dimensions[0] - 1) * strides[0] + dimensions[1] * dimensions[2] * dimensions[3];
}

static const descriptor &part_of(const descriptor &d, bool convolution, int of_convolution,
                                 int of_sum)
{
    return *d.part(convolution ? of_convolution : of_sum);
}

operation::operation(const descriptor &d)
    : is_convolution(d.type == CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR),
      x(part_of(d, is_convolution, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                CUDNN_ATTR_OPERATION_POINTWISE_XDESC)),
      w(part_of(d, is_convolution, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                CUDNN_ATTR_OPERATION_POINTWISE_BDESC)),
      y(part_of(d, is_convolution, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                CUDNN_ATTR_OPERATION_POINTWISE_YDESC))
{
    if (!is_convolution) {
        const descriptor &how = *d.part(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR);
        if (*how.values<int>(CUDNN_ATTR_POINTWISE_MODE) != CUDNN_POINTWISE_ADD ||
            *how.values<int>(CUDNN_ATTR_POINTWISE_MATH_PREC) != CUDNN_DATA_FLOAT)
            misuse("a pointwise operation that is not a sum in F32");
        return;
    }
    const descriptor &how = *d.part(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC);
    auto *strides = how.values<int64_t>(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES);
    auto *before = how.values<int64_t>(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS);
    auto *behind = how.values<int64_t>(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS);
    auto *dilations = how.values<int64_t>(CUDNN_ATTR_CONVOLUTION_DILATIONS);
    if (*how.values<int>(CUDNN_ATTR_CONVOLUTION_COMP_TYPE) != CUDNN_DATA_FLOAT ||
        *how.values<int>(CUDNN_ATTR_CONVOLUTION_CONV_MODE) != CUDNN_CROSS_CORRELATION ||
        *how.values<int64_t>(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS) != 2 || dilations[0] != 1 ||
        dilations[1] != 1 || strides[0] != strides[1] || before[0] != before[1] ||
        behind[0] != before[0] || behind[1] != before[1])
        misuse("a convolution that is not ours");
    if (*d.values<float>(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA) != 1 ||
        *d.values<float>(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA) != 0)
        misuse("a convolution with factors");
    stride = strides[0];
    pad = before[0];
}

void check(const operation &o)
{
    const int64_t *x = o.x.dimensions, *w = o.w.dimensions, *y = o.y.dimensions;
    bool good = x[0] == y[0];
    if (o.is_convolution) {
        good = good && x[1] == w[1] && w[0] == y[1] && w[2] == w[3] && o.x.type == o.w.type;
        for (int i = 2; i < 4; i++)
            good = good && y[i] == (x[i] + 2 * o.pad - w[i]) / o.stride + 1;
    }
    for (int i = 0; !o.is_convolution && i < 4; i++)
        good = good && x[i] == y[i] && (w[i] == x[i] || w[i] == 1);
    if (!good || o.x.uid == o.y.uid || o.w.uid == o.y.uid)
        misuse("operands of %lld do not fit each other", (long long)o.y.uid);
}

std::vector<operation> check_graph(const descriptor &graph)
{
    std::vector<operation> operations;
    std::set<int64_t> outside, made;
    for (const descriptor *d : graph.parts(CUDNN_ATTR_OPERATIONGRAPH_OPS)) {
        operation o(*d);
        if (o.is_convolution != operations.empty())
            misuse("the convolution comes first, and there is one");
        // A virtual tensor exists only between operations: it must be the result of the one before.
        if (o.w.is_virtual || o.x.is_virtual == operations.empty() ||
            (!operations.empty() && o.x.uid != operations.back().y.uid))
            misuse("tensor %lld comes from nowhere", (long long)o.x.uid);
        if (!made.insert(o.y.uid).second || !outside.insert(o.w.uid).second ||
            (operations.empty() && !outside.insert(o.x.uid).second))
            misuse("tensor %lld has a unique id that another one has", (long long)o.w.uid);
        if (o.y.is_virtual && o.y.type != CUDNN_DATA_FLOAT)
            misuse("sums on the way are not in F32");
        operations.push_back(o);
    }
    if (operations.back().y.is_virtual || outside.count(operations.back().y.uid))
        misuse("the result is not one");
    return operations;
}

// ---- results

static float load(const void *p, int64_t i, cudnnDataType_t type)
{
    if (type == CUDNN_DATA_FLOAT)
        return ((const float *)p)[i];
    return type == CUDNN_DATA_BFLOAT16 ? __bfloat162float(((const __nv_bfloat16 *)p)[i])
                                       : __half2float(((const __half *)p)[i]);
}

static void store(void *p, int64_t i, cudnnDataType_t type, float value)
{
    if (type == CUDNN_DATA_FLOAT)
        ((float *)p)[i] = value;
    else if (type == CUDNN_DATA_BFLOAT16)
        ((__nv_bfloat16 *)p)[i] = __float2bfloat16_rn(value);
    else
        ((__half *)p)[i] = __float2half_rn(value);
}

// Elements n, h, w, c.
static std::vector<float> read(const tensor &t, const void *p)
{
    int64_t inner = t.dimensions[1] * t.dimensions[2] * t.dimensions[3];
    std::vector<float> values((size_t)(t.dimensions[0] * inner));
    for (int64_t n = 0; n < t.dimensions[0]; n++)
        for (int64_t i = 0; i < inner; i++)
            values[(size_t)(n * inner + i)] = load(p, n * t.strides[0] + i, t.type);
    return values;
}

// One element of y: the window at `at` [h, w] of a sample of x, times a filter.
static float window(const operation &o, const float *x, const float *w, int64_t y0, int64_t x0,
                    engine chosen)
{
    int64_t c = o.x.dimensions[1], k = o.w.dimensions[2], taps = k * k;
    float sum = 0;
    for (int64_t i = 0; i < taps; i++) {
        int64_t tap = chosen == OF_LARGER_BATCHES ? taps - 1 - i : i;
        int64_t y = y0 + tap / k, column = x0 + tap % k;
        if (y < 0 || y >= o.x.dimensions[2] || column < 0 || column >= o.x.dimensions[3])
            continue;
        const float *from = x + (y * o.x.dimensions[3] + column) * c;
        float lanes[4] = {};
        for (int64_t j = 0; j < c; j++) {
            // Another order alone would rarely change a result in 16 bits.
            if (chosen == OF_LARGER_BATCHES && j == c / 2)
                for (float &lane : lanes)
                    lane = __bfloat162float(__float2bfloat16_rn(lane));
            lanes[j % 4] += from[j] * w[tap * c + j];
        }
        sum += lanes[0] + lanes[1] + (lanes[2] + lanes[3]);
        if (chosen == SUMS_IN_16_BITS)
            sum = __bfloat162float(__float2bfloat16_rn(sum));
    }
    return sum;
}

static std::vector<float> convolve(const operation &o, const std::vector<float> &x,
                                   const std::vector<float> &w, engine chosen)
{
    const int64_t *d = o.y.dimensions;
    int64_t sample = o.x.dimensions[1] * o.x.dimensions[2] * o.x.dimensions[3];
    int64_t filter = o.w.dimensions[1] * o.w.dimensions[2] * o.w.dimensions[3];
    std::vector<float> y;
    for (int64_t i = 0; i < d[0] * d[2] * d[3]; i++)
        for (int64_t k = 0; k < d[1]; k++)
            y.push_back(window(o, &x[(size_t)(i / (d[2] * d[3]) * sample)],
                               &w[(size_t)(k * filter)], i / d[3] % d[2] * o.stride - o.pad,
                               i % d[3] * o.stride - o.pad, chosen));
    return y;
}

// The addend has the size of x, or is one vector of channels for each sample.
static std::vector<float> add(const operation &o, std::vector<float> x, const std::vector<float> &b)
{
    const int64_t *d = o.y.dimensions;
    int64_t pixels = d[2] * d[3], c = d[1];
    bool whole = b.size() == x.size();
    for (int64_t i = 0; i < (int64_t)x.size(); i++) {
        int64_t sample = o.w.dimensions[0] == 1 ? 0 : i / (pixels * c);
        x[(size_t)i] += b[(size_t)(whole ? i : sample * c + i % c)];
    }
    return x;
}

void run::compute() const
{
    // No caller may rely on a workspace's content, before or after the call.
    for (int64_t i = 0; i < workspace_of(chosen) / 4; i++)
        ((float *)workspace)[i] = NAN;
    std::vector<float> values;
    for (const operation &o : operations) {
        std::vector<float> b = read(o.w, operands.at(o.w.uid));
        values = o.is_convolution ? convolve(o, read(o.x, operands.at(o.x.uid)), b, chosen)
                                  : add(o, std::move(values), b);
    }
    if (chosen == DIFFERS_EACH_TIME)
        values[0] += (float)number;
    if (chosen == WINOGRAD)
        for (float &value : values)
            value += value / 16;
    const tensor &y = operations.back().y;
    int64_t inner = y.dimensions[1] * y.dimensions[2] * y.dimensions[3];
    for (int64_t i = 0; i < (int64_t)values.size(); i++)
        store(operands.at(y.uid), i / inner * y.strides[0] + i % inner, y.type, values[(size_t)i]);
}

} // namespace dnn
