// Distances between results and goldens: see compare.h.
#include "compare.h"

#include <math.h>

double compare_relative_l2(const float *a, const float *b, size_t count)
{
    double difference = 0, size = 0;
    for (size_t i = 0; i < count; i++) {
        double d = (double)a[i] - (double)b[i];
        difference += d * d;
        size += (double)b[i] * (double)b[i];
    }
    return size > 0 ? sqrt(difference / size) : sqrt(difference);
}

double compare_psnr(const uint8_t *a, const uint8_t *b, size_t count)
{
    double squares = 0;
    for (size_t i = 0; i < count; i++) {
        double d = (double)a[i] - (double)b[i];
        squares += d * d;
    }
    return squares > 0 ? 10 * log10(255.0 * 255.0 * (double)count / squares) : INFINITY;
}

size_t compare_mismatches(const int64_t *a, const int64_t *b, size_t count)
{
    size_t mismatches = 0;
    for (size_t i = 0; i < count; i++)
        mismatches += a[i] != b[i];
    return mismatches;
}
