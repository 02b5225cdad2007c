// Damaged key files. Those that are taken are put into force beside the good one, and used.
#include "fuzz.h"

#include "server/clients.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KEY "atedm_0000000000000000000000000000000000000000000000000000000000000001"
#define PATH_MAX_BYTES 64

static const char good[] =
    "{\"keys\": [{\"name\": \"alice\", \"hash\": \"sha256:"
    "ec868922b2b6d36f6a62221e79a54ca46df4fb1436f3a1d2ad717b2a57560643\","
    " \"requests_per_minute\": 60, \"burst\": 2, \"max_queued\": 2, \"max_priority\": 3,"
    " \"admin\": true, \"disabled\": false, \"expires\": \"2027-01-01T00:00:00Z\"},"
    " {\"name\": \"bob\", \"hash\": \"sha256:"
    "0000000000000000000000000000000000000000000000000000000000000000\"}]}";

typedef struct key_state {
    char path[PATH_MAX_BYTES];
} key_state;

static void *setup(void)
{
    key_state *state = fuzz_allocate(sizeof *state);
    snprintf(state->path, sizeof state->path, "/tmp/atedm-fuzz-keys-XXXXXX");
    int fd = mkstemp(state->path);
    fuzz_expect(fd >= 0, "a file can be made");
    close(fd);
    return state;
}

static void finish(void *user)
{
    key_state *state = user;
    unlink(state->path);
    free(state);
}

static atedm_status read_keys(const key_state *state, const void *data, size_t size,
                              atedm_client_keys **ret_keys, atedm_error *err)
{
    FILE *file = fopen(state->path, "wb");
    fuzz_expect(file && fwrite(data, 1, size, file) == size, "the file can be written");
    fclose(file);
    return atedm_client_keys_read(state->path, ret_keys, err);
}

// What is open when the good keys are replaced by the damaged ones, and they by the good ones
// again, can be released.
static void use(const key_state *state, atedm_client_keys *take_keys, fuzz_rng *rng)
{
    static const char *const names[] = {"alice", "bob", ""};
    const size_t n_names = sizeof names / sizeof *names;
    atedm_client_keys *first = NULL, *last = NULL;
    atedm_clients *clients = NULL;
    fuzz_expect(!atedm_clients_create(&clients), "memory");
    fuzz_expect(!read_keys(state, good, strlen(good), &first, NULL), "the good keys are good");
    fuzz_expect(!read_keys(state, good, strlen(good), &last, NULL), "and stay so");
    atedm_client_keys *turns[] = {first, take_keys, last};
    size_t open[3] = {0};
    double now = 0;
    for (size_t turn = 0; turn < 3; turn++) {
        atedm_buffer text;
        atedm_buffer_init(&text, 1u << 20);
        fuzz_expect(!atedm_clients_describe(clients, turns[turn], &text), "changes have a text");
        atedm_buffer_finish(&text);
        atedm_clients_replace(clients, turns[turn], now);
        const char *name = NULL;
        atedm_access access = atedm_clients_authenticate(clients, KEY, 0, &name);
        fuzz_expect(access != ATEDM_ACCESS_GRANTED || *name, "who is let in has a name");
        for (int i = 0; i < 8; i++) {
            size_t which = fuzz_below(rng, n_names);
            double wait_s = 0;
            now += (double)fuzz_below(rng, 3);
            atedm_quota quota = atedm_clients_acquire(clients, names[which], now, &wait_s);
            open[which] += quota == ATEDM_QUOTA_OK;
            fuzz_expect(quota != ATEDM_QUOTA_RATE || (wait_s > 0 && wait_s <= 60), "a wait");
        }
    }
    for (size_t which = 0; which < n_names; which++) {
        fuzz_expect(atedm_clients_open(clients, names[which]) == open[which], "all are counted");
        while (open[which]--)
            atedm_clients_release(clients, names[which]);
        fuzz_expect(atedm_clients_open(clients, names[which]) == 0, "all are given back");
    }
    atedm_clients_destroy(clients);
}

static bool run(void *user, fuzz_rng *rng)
{
    const key_state *state = user;
    fuzz_bytes damaged = fuzz_mutate_json_text(rng, good);
    atedm_client_keys *keys = NULL;
    atedm_error err = {.message = ""};
    atedm_status status = read_keys(state, damaged.data, damaged.size, &keys, &err);
    free(damaged.data);
    fuzz_expect_message(status, &err);
    fuzz_expect(!status == (keys != NULL), "output only where it is taken");
    fuzz_expect(!status || strstr(err.message, state->path), "the message names the file");
    if (keys)
        use(state, keys, rng);
    return !status;
}

const fuzz_target fuzz_keys = {"keys", setup, run, finish};
