// Deliberate faults in a side's fetched results. The parity program must see each of them.
#include "tests/parity/parity.h"

#include <math.h>
#include <string.h>

const char *parity_sabotage_name(parity_sabotage kind)
{
    switch (kind) {
    case PARITY_SABOTAGE_NONE:
        return "none";
    case PARITY_SABOTAGE_ELEMENT:
        return "element";
    case PARITY_SABOTAGE_NAN:
        return "nan";
    case PARITY_SABOTAGE_BEHIND:
        return "behind";
    case PARITY_SABOTAGE_BEFORE:
        return "before";
    case PARITY_SABOTAGE_INPUT:
        return "input";
    case PARITY_SABOTAGE_PART:
        return "part";
    case PARITY_SABOTAGE_COUNT:
        return "count";
    case PARITY_SABOTAGE_KINDS:
        break;
    }
    return "?";
}

// A random array, with results in it if `output`, else without; n_arrays if there is none.
static size_t pick_array(const parity_case *c, bool output, parity_rng *rng)
{
    size_t found[PARITY_MAX_ARRAYS], n = 0;
    for (size_t i = 0; i < c->n_arrays; i++)
        if ((c->arrays[i].role != PARITY_IN) == output && c->arrays[i].count)
            found[n++] = i;
    return n ? found[parity_range(rng, 0, (int64_t)n - 1)] : c->n_arrays;
}

// Root mean square of the elements that the operation wrote.
static double root_mean_square(const parity_case *c, const parity_side *side, size_t array)
{
    const parity_array *a = &c->arrays[array];
    double sum = 0, n = 0;
    for (size_t i = 0; i < a->count; i++)
        if (!a->written || a->written[i]) {
            double value = parity_value(side, c, array, i);
            sum += value * value;
            n++;
        }
    return n > 0 ? sqrt(sum / n) : 0;
}

static bool is_float(parity_type type)
{
    return type == PARITY_ACT || type == PARITY_F32;
}

// Sets element `i` of the fetched array to `value`.
static void put(const parity_case *c, parity_side *side, size_t array, size_t i, float value)
{
    const parity_array *a = &c->arrays[array];
    size_t first, bytes, total, size = parity_element_size(a->type, side->act);
    parity_extent(side, c, array, &first, &bytes, &total);
    _Alignas(float) char element[sizeof(float)];
    atedm_convert(&value, ATEDM_F32, element, a->type == PARITY_ACT ? side->act : ATEDM_F32, 1);
    memcpy(side->after[array] + first + i * size, element, size);
}

// Changes an element by as much as a mistake would: the last bit of an exact result, some per cent
// of a typical value in bf16 and f16, a few thousandths of one in F32.
static bool spoil_element(const parity_case *c, parity_side *side, size_t array, size_t i)
{
    const parity_array *a = &c->arrays[array];
    size_t first, bytes, total, size = parity_element_size(a->type, side->act);
    parity_extent(side, c, array, &first, &bytes, &total);
    if (!is_float(a->type) || c->op->exact ||
        a->exact) { // a byte's neighbour may be right in image_finish
        side->after[array][first + i * size] ^= a->type == PARITY_U8 ? 4 : 1;
        return true;
    }
    double value = parity_value(side, c, array, i);
    double typical = fmax(fabs(value), root_mean_square(c, side, array));
    double step = typical * (c->act == ATEDM_F32 ? 0x1p-9 : 0x1p-5);
    put(c, side, array, i, (float)(value > 0 ? value + step : value - step));
    return parity_value(side, c, array, i) != value;
}

bool parity_sabotage_apply(parity_sabotage kind, const parity_case *c, parity_side *side,
                           parity_rng *rng)
{
    size_t array = pick_array(c, kind != PARITY_SABOTAGE_INPUT, rng);
    if (array == c->n_arrays)
        return false;
    const parity_array *a = &c->arrays[array];
    size_t first, bytes, total, size = parity_element_size(a->type, side->act);
    parity_extent(side, c, array, &first, &bytes, &total);
    size_t i = (size_t)parity_range(rng, 0, (int64_t)a->count - 1);
    while (kind != PARITY_SABOTAGE_INPUT && a->written && !a->written[i])
        i = (i + 1) % a->count; // every case writes something
    switch (kind) {
    case PARITY_SABOTAGE_ELEMENT:
        return spoil_element(c, side, array, i);
    case PARITY_SABOTAGE_NAN:
        if (is_float(a->type))
            put(c, side, array, i, NAN);
        return is_float(a->type);
    case PARITY_SABOTAGE_BEHIND:
        side->after[array][first + bytes] ^= 1;
        return true;
    case PARITY_SABOTAGE_BEFORE:
        side->after[array][first - 1] ^= 1;
        return true;
    case PARITY_SABOTAGE_INPUT:
    case PARITY_SABOTAGE_PART:
        side->after[array][first + i * size] ^= 1;
        return true;
    case PARITY_SABOTAGE_NONE:
    case PARITY_SABOTAGE_COUNT:
    case PARITY_SABOTAGE_KINDS:
        break;
    }
    return false;
}
