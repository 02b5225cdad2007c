// Distances between what we computed and a golden. All are NaN where either side holds one, and no
// bound admits NaN.
#ifndef ATEDM_TESTS_COMPARE_H
#define ATEDM_TESTS_COMPARE_H

#include "core/base/tensor.h"

// |a - b|_2 / |b|_2; b all zero: |a|_2.
double compare_relative_l2(const float *a, const float *b, size_t count);
// Peak signal-to-noise ratio of 8-bit pictures in dB; INFINITY where equal.
double compare_psnr(const uint8_t *a, const uint8_t *b, size_t count);
// How many of the integers differ.
size_t compare_mismatches(const int64_t *a, const int64_t *b, size_t count);

#endif
