#!/bin/sh
# Runs every test of the given build folders, or those of a suite of theirs, and closes with the sum
# of all. Goes on after a failure, so that one run shows them all.
#
# usage: tests/check.sh BUILD_DIR[:SUITE]...
set -u

source_dir=$(dirname "$0")
status=0
# One more than there are cores: tests over HTTP wait for a fifth of their time.
export MESON_TESTTHREADS="${MESON_TESTTHREADS:-$(($(nproc) + 1))}"
export OMP_WAIT_POLICY=passive # tests run side by side: waiting threads must not burn the cores
export ASAN_OPTIONS="${ASAN_OPTIONS:-abort_on_error=1:detect_stack_use_after_return=1}"
export TSAN_OPTIONS="${TSAN_OPTIONS:-halt_on_error=1:exitcode=66}"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-halt_on_error=1:abort_on_error=1:print_stacktrace=1}"
builds=
for part in "$@"; do
    build=${part%%:*}
    suite=${part#"$build"}
    suite=${suite#:}
    builds="$builds $build"
    echo "== tests of $part"
    meson test -C "$build" --no-rebuild --print-errorlogs --timeout-multiplier 4 \
        ${suite:+--suite "$suite"} || status=1
done
# shellcheck disable=SC2086 # folders of ours, without spaces
python3 "$source_dir/summary.py" $builds || status=1
exit $status
