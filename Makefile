# The front door. Everything here is a few lines around Meson: build/ is a Meson build folder, and
# all of Meson's own commands work on it.

MODEL ?= models/demo
LISTEN ?= 127.0.0.1:8080
MESON ?= meson
# Where something is missing, installs it (with apt, as root or through sudo), or says what to do.
INSTALL := deploy/install-deps.sh

.DEFAULT_GOAL := help
.NOTPARALLEL: # both build folders want all cores
.PHONY: help serve build check test asan tsan fuzz chaos soak bench bench-serving quality lint format deb try-deb clean
.PHONY: check-gpu bench-gpu pack-gpu coverage-cuda emulated

help:
	@echo 'make serve    install what is missing, build, start atedmd on $(LISTEN)'
	@echo '              (MODEL=DIR for another model, LISTEN=ADDRESS:PORT for another address)'
	@echo 'make check    install what is missing, build, run every test: release, sanitizers, lint'
	@echo 'make build    build into build/: build/server/atedmd, build/cli/atedm'
	@echo 'make test     the tests of build/ only'
	@echo 'make asan     the tests under AddressSanitizer and UBSan only, in build-asan/'
	@echo 'make emulated  the tests on the emulated cuda backend only, in every build'
	@echo 'make fuzz     damaged input for all that is read, much longer than make check (SEED=N)'
	@echo 'make chaos    kill the daemon and its workers under load, and count (KILLS=200 SEED=N)'
	@echo 'make soak     half an hour of steady load with faults: memory, descriptors, latencies (SOAK_S=1800 SEED=N)'
	@echo 'make tsan     the daemon and its worker under ThreadSanitizer, over the HTTP tests, in build-tsan/'
	@echo 'make lint     format, clang-tidy, include directions, banned functions, file lengths'
	@echo 'make format   lay out every source file with clang-format'
	@echo 'make bench    time kernels and denoising steps'
	@echo 'make bench-serving  a daemon under load: batching (SERVING=pays), the overload valve (SERVING=valve)'
	@echo 'make deb      Debian packages, in build/deb (CUDA=cuda: with the backend for NVIDIA GPUs)'
	@echo 'make try-deb  the packages and the service, in a Debian machine with systemd (root; minutes)'
	@echo 'make quality  hundreds of pictures of the demo model, read back: a table and a plot'
	@echo 'make check-gpu  the tests that need an NVIDIA GPU, built in build-gpu/ (CHECK_GPU="--only parity soak")'
	@echo 'make bench-gpu  every figure of the cuda backend in one run, to bench/results (BENCH_GPU=--toy)'
	@echo 'make pack-gpu  what both run, as an archive for a machine that has a GPU but no packages'
	@echo 'make coverage-cuda  which lines of kernels/cuda the emulated tests execute'
	@echo 'make clean    remove build/, build-asan/, build-gpu/ and build-tsan/'

# ---- build and run

.PHONY: deps deps-check build-with-tests build-asan setup-tsan build-tsan build-races

deps:
	@$(INSTALL) run

deps-check:
	@$(INSTALL) check

build: deps
	@[ -f build/build.ninja ] || { pkg-config --exists criterion && tests=true || tests=false; \
	    $(MESON) setup build -Dtests=$$tests; }
	@ninja -C build

serve: build
	@deploy/serve.sh build/server/atedmd '$(MODEL)' '$(LISTEN)'

# ---- tests

# build/ may stem from `make serve` on a machine that had no test library then.
build-with-tests: deps-check
	@if [ -f build/build.ninja ]; then $(MESON) configure build -Dtests=true; \
	    else $(MESON) setup build; fi
	@ninja -C build

build-asan: deps-check
	@if [ -f build-asan/build.ninja ]; then $(MESON) configure build-asan -Dfault_injection=true; \
	    else $(MESON) setup build-asan -Doptimization=1 -Ddebug=true -Dfault_injection=true \
	    -Db_lundef=false -Db_sanitize=address,undefined -Dc_args=-fno-sanitize-recover=all; fi
	@ninja -C build-asan

# The kernels of the emulated cuda backend under ThreadSanitizer.
build-races: setup-tsan
	@ninja -C build-tsan races

check: build-with-tests build-asan build-races
	@tests/check.sh build build-asan build-tsan:races

test: build-with-tests
	@tests/check.sh build

asan: build-asan
	@tests/check.sh build-asan

# All that runs on the emulated cuda backend.
emulated: build-with-tests build-asan build-races
	@tests/check.sh build:emulated build-asan:emulated build-tsan:races

SEED ?= 1
fuzz: build-asan
	@for run in 'safetensors 200000' 'configs 100000' 'vocabulary 30000' 'pruning 1000000' \
	    'prompt 200000' 'keys 50000'; do \
	    ATEDM_GOLDEN_DIR=tests/golden/data build-asan/tests/fuzz/fuzz $$run $(SEED) || exit 1; done

chaos: build-with-tests
	@cd tests/e2e && ATEDMD=$(CURDIR)/build/server/atedmd OMP_WAIT_POLICY=passive \
	    ATEDM_TEST_MODEL=$(CURDIR)/build/tests/e2e/tiny-model python3 chaos.py $(or $(KILLS),200) $(SEED)

soak: build-with-tests
	@cd tests/e2e && ATEDMD=$(CURDIR)/build/server/atedmd OMP_WAIT_POLICY=passive \
	    ATEDM_TEST_MODEL=$(CURDIR)/build/tests/e2e/tiny-model python3 soak.py $(or $(SOAK_S),1800) $(SEED)

setup-tsan: deps-check
	@[ -f build-tsan/build.ninja ] || $(MESON) setup build-tsan -Dbuildtype=debugoptimized \
	    -Dfault_injection=true -Db_lundef=false -Db_sanitize=thread

build-tsan: setup-tsan
	@ninja -C build-tsan server/atedmd server/atedm-worker cli/atedm tests/e2e/tiny-model

# One thread for the kernels: gcc's OpenMP is not built for ThreadSanitizer, which would see races where there are none.
tsan: build-tsan
	@OMP_NUM_THREADS=1 tests/check.sh build-tsan:api

lint: build-with-tests
	@$(MESON) test -C build --no-rebuild --print-errorlogs --suite lint

# BENCH is anything that `atedm bench step` takes, for example '--arch sdxl-base'.
BENCH ?= --model '$(MODEL)'
bench: build-with-tests
	@build/tests/parity/parity --backend cpu --bench
	@build/cli/atedm bench step $(BENCH)

# SERVING is what tests/bench/serving.py takes: 'pays', 'valve' with options.
SERVING ?= pays
bench-serving: build
	@ATEDMD=$(CURDIR)/build/server/atedmd ATEDM=$(CURDIR)/build/cli/atedm ATEDM_TEST_MODEL='$(MODEL)' \
	    python3 tests/bench/serving.py $(SERVING)

# Everything that tests/quality/quality.py takes, for example '--prompts 20 --arms off at-edm-c'.
QUALITY ?=
quality: build
	@$(INSTALL) quality
	@ATEDMD=build/server/atedmd ATEDM_TEST_MODEL='$(MODEL)' OMP_WAIT_POLICY=passive \
	    /usr/bin/python3 tests/quality/quality.py --out build/quality $(QUALITY)

# ---- GPU: both end with 77, which make calls an error, where no device answers

CHECK_GPU ?=
check-gpu:
	@python3 tests/device/check_gpu.py $(CHECK_GPU)

BENCH_GPU ?=
bench-gpu:
	@python3 tests/device/bench_gpu.py $(BENCH_GPU)

pack-gpu:
	@python3 tests/device/pack.py

coverage-cuda: build-with-tests
	@OMP_WAIT_POLICY=passive python3 tests/emulated/coverage.py build

# ---- packages

CUDA ?=
deb:
	@$(INSTALL) package
	@deploy/debian/build.sh $(CUDA)

try-deb: deb
	@$(INSTALL) machine
	@deploy/debian/try.sh
	@deploy/debian/try.sh chroot
	@deploy/systemd/try.sh

# ---- housekeeping

format:
	@git ls-files -z -- '*.c' '*.h' '*.cpp' '*.hpp' '*.cu' '*.cuh' | xargs -0 clang-format-14 -i

clean:
	rm -rf build build-asan build-gpu build-tsan
