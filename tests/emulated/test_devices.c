// Several devices of the cuda backend: which device a name or a selection means; each device has
// its own streams, memory and losses. Runs on the emulated backend, whose file is
// $ATEDM_CUDA_BACKEND.
#include "kernels/kernels.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// The UUIDs of the emulation.
#define FIRST "GPU-a0000000-0000-0000-0000-000000000000"
#define SECOND "GPU-a1000000-0000-0000-0000-000000000001"
#define THIRD "GPU-a2000000-0000-0000-0000-000000000002"

static void emulate(const char *devices)
{
    setenv("ATEDM_EMULATED_DEVICES", devices, 1);
}

static void expect_selection(const char *selection, size_t count, const int *indexes)
{
    atedm_device_facts facts[ATEDM_MAX_DEVICES];
    size_t found = 0;
    atedm_error err = {""};
    cr_assert_eq(atedm_devices_select("cuda", selection, facts, &found, &err), ATEDM_OK, "%s: %s",
                 selection, err.message);
    cr_assert_eq(found, count, "%s: %zu", selection, found);
    for (size_t i = 0; i < count; i++) {
        char name[32];
        snprintf(name, sizeof name, "cuda:%d", indexes[i]);
        cr_expect_eq(facts[i].index, indexes[i]);
        cr_expect_str_eq(facts[i].name, name);
    }
}

static void expect_refusal(const char *backend, const char *selection, atedm_status expected,
                           const char *words)
{
    atedm_device_facts facts[ATEDM_MAX_DEVICES];
    size_t count = 77;
    atedm_error err = {""};
    cr_expect_eq(atedm_devices_select(backend, selection, facts, &count, &err), expected);
    cr_expect(strstr(err.message, words) != NULL, "%s: \"%s\"", selection, err.message);
    cr_expect_eq(count, 77);
}

// The driver shows no device any more after the backend has loaded.
Test(devices, none_left)
{
    atedm_device *device = NULL;
    atedm_error err = {""};
    emulate("2");
    expect_selection("auto", 2, (int[]){0, 1});
    setenv("ATEDM_EMULATED_GONE", "1", 1);
    cr_expect_eq(atedm_device_create("cuda", &device, &err), ATEDM_ERR_UNSUPPORTED);
    cr_expect_null(device);
    cr_expect_str_eq(err.message, "cuda: no device answers");
    cr_expect_eq(atedm_device_create("cuda:0", &device, NULL), ATEDM_ERR_UNSUPPORTED);
    expect_refusal("cuda", "auto", ATEDM_ERR_UNSUPPORTED, "no device answers");
    expect_refusal("cuda", "0", ATEDM_ERR_UNSUPPORTED, "no device answers");
}

Test(devices, selections)
{
    emulate("3");
    expect_selection("auto", 3, (int[]){0, 1, 2});
    expect_selection("2", 1, (int[]){2});
    expect_selection("2,0", 2, (int[]){2, 0});
    expect_selection(SECOND, 1, (int[]){1});
    expect_selection("GPU-a2", 1, (int[]){2});
    expect_selection("1,GPU-a0000000,MIG-a2", 3, (int[]){1, 0, 2});
}

Test(devices, selections_that_are_refused)
{
    emulate("2");
    const char *const missing[] = {"2",    "7",     "-1", "01",     "0x1",           "",
                                   "GPU-", "GPU-b", "a0", "cuda:0", "GPU-a00000001", "0,2",
                                   "0,",   ",0"};
    for (size_t i = 0; i < sizeof missing / sizeof *missing; i++)
        expect_refusal("cuda", missing[i], ATEDM_ERR_NOT_FOUND,
                       "there are: cuda:0 (Emulated GPU 0, " FIRST
                       "), cuda:1 (Emulated GPU 1, " SECOND ")");
    expect_refusal("cuda", "GPU-a", ATEDM_ERR_INVALID, "cuda:0 or cuda:1");
    expect_refusal("cuda", "1,0,1", ATEDM_ERR_INVALID, "cuda:1 is there twice");
    expect_refusal("cuda", "0," FIRST, ATEDM_ERR_INVALID, "cuda:0 is there twice");
    expect_refusal("cpu", "0", ATEDM_ERR_INVALID, "cpu");
    expect_refusal("gpu", "auto", ATEDM_ERR_NOT_FOUND, "gpu");
}

Test(devices, of_backends_with_one)
{
    atedm_device_facts facts[ATEDM_MAX_DEVICES];
    size_t count = 0;
    cr_assert_eq(atedm_devices_select("cpu", "auto", facts, &count, NULL), ATEDM_OK);
    cr_expect_eq(count, 1);
    cr_expect_str_eq(facts[0].name, "cpu");
    cr_expect_str_eq(facts[0].uuid, "");
    atedm_device *device = NULL;
    cr_expect_eq(atedm_device_create("cpu:0", &device, NULL), ATEDM_ERR_NOT_FOUND);
    cr_expect_eq(atedm_device_create("a backend with a long name", &device, NULL),
                 ATEDM_ERR_NOT_FOUND);
    cr_expect_null(device);
}

static atedm_device *open_device(const char *name)
{
    atedm_device *device = NULL;
    atedm_error err = {""};
    cr_assert_eq(atedm_device_create(name, &device, &err), ATEDM_OK, "%s", err.message);
    return device;
}

Test(devices, names)
{
    static const struct {
        const char *asked, *name;
    } cases[] = {{"cuda", "cuda:0"},
                 {"cuda:1", "cuda:1"},
                 {"cuda:" SECOND, "cuda:1"},
                 {"cuda:GPU-a0", "cuda:0"}};
    emulate("2");
    setenv("ATEDM_EMULATED_MEMORY", "1000000", 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        atedm_device *device = open_device(cases[i].asked);
        const atedm_device_facts *facts = atedm_device_describe(device);
        cr_expect_str_eq(facts->name, cases[i].name);
        cr_expect_str_eq(atedm_device_backend(device), "cuda");
        cr_expect_str_eq(facts->model, facts->index ? "Emulated GPU 1" : "Emulated GPU 0");
        cr_expect_str_eq(facts->uuid, facts->index ? SECOND : FIRST);
        cr_expect_eq(facts->memory, 1000000);
        atedm_device_destroy(device);
    }
    atedm_device *device = NULL;
    atedm_error err = {""};
    cr_expect_eq(atedm_device_create("cuda:2", &device, &err), ATEDM_ERR_NOT_FOUND);
    cr_expect(strstr(err.message, "cuda:1") != NULL, "%s", err.message);
    cr_expect_eq(atedm_device_create("cuda:", &device, &err), ATEDM_ERR_NOT_FOUND);
    cr_expect_null(device);
}

// ---- streams and memory

enum { COUNT = 256 };

typedef struct side {
    atedm_device *device;
    atedm_stream *s;
    float *x;
} side;

static side open_side(const char *name)
{
    side o = {.device = open_device(name)};
    void *memory = NULL;
    cr_assert_eq(atedm_stream_create(o.device, ATEDM_F32, &o.s, NULL), ATEDM_OK);
    cr_assert_eq(atedm_device_alloc(o.device, COUNT * sizeof(float), &memory, NULL), ATEDM_OK);
    o.x = memory;
    return o;
}

static void close_side(side *o)
{
    atedm_device_free(o->device, o->x);
    atedm_stream_destroy(o->s);
    atedm_device_destroy(o->device);
}

static void fill(side *o, float value)
{
    float x[COUNT];
    for (int i = 0; i < COUNT; i++)
        x[i] = value;
    atedm_upload(o->s, x, o->x, sizeof x);
}

static void expect_filled(side *o, float value)
{
    float x[COUNT] = {0};
    atedm_error err = {""};
    atedm_download(o->s, o->x, x, sizeof x);
    cr_assert_eq(atedm_stream_sync(o->s, &err), ATEDM_OK, "%s", err.message);
    for (int i = 0; i < COUNT; i++)
        cr_assert_float_eq(x[i], value, 0);
}

// One thread uses both devices in turns.
static void work_on_both(void)
{
    emulate("2");
    side a = open_side("cuda:0"), b = open_side("cuda:1");
    fill(&a, 1);
    fill(&b, 2);
    for (int i = 0; i < 3; i++) {
        atedm_add(a.s, a.x, a.x, a.x, COUNT);
        atedm_add(b.s, b.x, b.x, b.x, COUNT);
    }
    expect_filled(&a, 8);
    expect_filled(&b, 16);
    close_side(&a);
    close_side(&b);
}

Test(devices, each_has_its_own)
{
    work_on_both();
}

Test(devices, each_has_its_own_late)
{
    setenv("ATEDM_EMULATED_LATE", "1", 1);
    setenv("ATEDM_EMULATED_PROTECT", "1", 1);
    work_on_both();
}

Test(devices, a_kernel_with_another_s_memory_is_a_fault, .signal = SIGABRT)
{
    emulate("2");
    side a = open_side("cuda:0"), b = open_side("cuda:1");
    atedm_add(a.s, a.x, a.x, b.x, COUNT);
}

Test(devices, a_copy_from_another_s_memory_is_a_fault, .signal = SIGABRT)
{
    emulate("2");
    side a = open_side("cuda:0"), b = open_side("cuda:1");
    atedm_copy(a.s, b.x, a.x, COUNT * sizeof(float));
}

Test(devices, memory_is_counted_by_device)
{
    emulate("2");
    setenv("ATEDM_EMULATED_MEMORY", "100000000", 1);
    atedm_device *a = open_device("cuda:0"), *b = open_device("cuda:1");
    void *most = NULL, *other = NULL, *more = NULL;
    cr_assert_eq(atedm_device_alloc(a, 90000000, &most, NULL), ATEDM_OK);
    cr_assert_eq(atedm_device_alloc(b, 90000000, &other, NULL), ATEDM_OK);
    cr_expect_eq(atedm_device_alloc(a, 20000000, &more, NULL), ATEDM_ERR_NOMEM);
    atedm_device_free(a, most);
    cr_assert_eq(atedm_device_alloc(a, 20000000, &more, NULL), ATEDM_OK);
    atedm_device_free(a, more);
    atedm_device_free(b, other);
    atedm_device_destroy(a);
    atedm_device_destroy(b);
}

Test(devices, one_is_lost_and_the_other_goes_on)
{
    char path[64], file[80];
    snprintf(path, sizeof path, "/tmp/atedm-lose-%d", (int)getpid());
    snprintf(file, sizeof file, "%s.1", path);
    emulate("2");
    setenv("ATEDM_EMULATED_LOSE", path, 1);
    side a = open_side("cuda:0"), b = open_side("cuda:1");
    fill(&a, 1);
    fill(&b, 1);
    int fd = open(file, O_CREAT | O_WRONLY, 0600);
    cr_assert_geq(fd, 0);
    close(fd);
    atedm_error err = {""};
    atedm_add(a.s, a.x, a.x, a.x, COUNT);
    atedm_add(b.s, b.x, b.x, b.x, COUNT);
    cr_expect_neq(access(file, F_OK), 0);
    for (int i = 0; i < 2; i++) {
        cr_expect_eq(atedm_stream_sync(b.s, &err), ATEDM_ERR_DEVICE);
        cr_expect(strstr(err.message, "lost to this process") != NULL, "%s", err.message);
        atedm_add(b.s, b.x, b.x, b.x, COUNT);
    }
    expect_filled(&a, 2);
    close_side(&a);
    close_side(&b);
}

// ---- what a device says about itself

static atedm_device_figures measure(atedm_device *device)
{
    atedm_device_figures figures;
    cr_assert(atedm_device_measure(device, &figures));
    return figures;
}

Test(devices, memory_is_known_without_nvml)
{
    setenv("ATEDM_EMULATED_MEMORY", "100000000", 1);
    atedm_device *device = open_device("cuda");
    double before = measure(device).value[ATEDM_FIGURE_MEMORY_FREE];
    void *memory = NULL;
    cr_assert_eq(atedm_device_alloc(device, 1000, &memory, NULL), ATEDM_OK);
    atedm_device_figures figures = measure(device);
    cr_expect_float_eq(figures.value[ATEDM_FIGURE_MEMORY_TOTAL], 1e8, 0);
    cr_expect_float_eq(figures.value[ATEDM_FIGURE_MEMORY_FREE], before - 1000, 0);
    for (int i = ATEDM_FIGURE_MEMORY_USED; i < ATEDM_FIGURE_COUNT; i++)
        cr_expect(isnan(figures.value[i]), "figure %d", i);
    atedm_device_free(device, memory);
    atedm_device_destroy(device);
}

// The library is found through LD_LIBRARY_PATH. Figures that it does not support stay unknown.
Test(devices, figures_of_nvml)
{
    setenv("ATEDM_EMULATED_NVML", "37 412500 61 123456789 1755 -", 1);
    atedm_device *device = open_device("cuda");
    atedm_device_figures figures = measure(device);
    cr_expect_float_eq(figures.value[ATEDM_FIGURE_UTILIZATION], 0.37, 1e-9);
    cr_expect_float_eq(figures.value[ATEDM_FIGURE_POWER], 412.5, 1e-9);
    cr_expect_float_eq(figures.value[ATEDM_FIGURE_TEMPERATURE], 61, 0);
    cr_expect_float_eq(figures.value[ATEDM_FIGURE_MEMORY_USED], 123456789, 0);
    cr_expect_float_eq(figures.value[ATEDM_FIGURE_SM_CLOCK], 1755e6, 0);
    cr_expect(isnan(figures.value[ATEDM_FIGURE_MEMORY_CLOCK]));
    atedm_device_destroy(device);
}

Test(devices, others_say_nothing)
{
    atedm_device *device = open_device("cpu");
    atedm_device_figures figures;
    cr_expect(!atedm_device_measure(device, &figures));
    atedm_device_destroy(device);
}
