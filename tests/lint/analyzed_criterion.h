// Criterion's assertions as the static analyzer gets to see them: tidy.py puts this before every
// file of tests that uses criterion. The real ones branch six ways each, over statistics and
// messages, which doubles the paths at every assertion: the analyzer gave up in the middle of most
// tests.
#ifndef ATEDM_TESTS_LINT_ANALYZED_CRITERION_H
#define ATEDM_TESTS_LINT_ANALYZED_CRITERION_H

#include <criterion/criterion.h>

// All of cr_assert_* and cr_expect_* come down to this one. `Fail` is what ends the test, or goes
// on.
#ifndef cr_assert_impl
#error "criterion's assertions are made of something else now"
#endif
#undef cr_assert_impl
#define cr_assert_impl(Fail, Condition, ...)                                                       \
    do {                                                                                           \
        if (!(Condition))                                                                          \
            Fail();                                                                                \
    } while (0)

#endif
