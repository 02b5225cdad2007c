// API keys and clients: the key file with everything that is wrong in it, who is let in, token
// buckets, counts of open requests, and what of that stays when the keys are replaced.
#include "server/clients.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Two keys and their hashes, by sha256sum.
#define KEY_A "atedm_0000000000000000000000000000000000000000000000000000000000000001"
#define HASH_A "sha256:ec868922b2b6d36f6a62221e79a54ca46df4fb1436f3a1d2ad717b2a57560643"
#define KEY_B "atedm_0000000000000000000000000000000000000000000000000000000000000002"
#define HASH_B "sha256:be90016cf7281215fb77e1ec61aed61e41196fc65c550ce7653d1236ea8ced0d"
#define ALICE "{\"name\": \"alice\", \"hash\": \"" HASH_A "\""
#define BOB "{\"name\": \"bob\", \"hash\": \"" HASH_B "\""
#define KEYS(list) "{\"keys\": [" list "]}"

static atedm_status read_text(const char *text, atedm_client_keys **ret_keys, atedm_error *err)
{
    char path[] = "/tmp/atedm-keys-XXXXXX";
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    atedm_status status = atedm_client_keys_read(path, ret_keys, err);
    unlink(path);
    return status;
}

static atedm_client_keys *keys_of(const char *text)
{
    atedm_client_keys *keys = NULL;
    atedm_error err = {""};
    cr_assert_eq(read_text(text, &keys, &err), ATEDM_OK, "%s", err.message);
    return keys;
}

static void expect_error(const char *text, const char *part)
{
    atedm_client_keys *keys = NULL;
    atedm_error err = {""};
    cr_assert_neq(read_text(text, &keys, &err), ATEDM_OK, "expected \"%s\"", part);
    cr_assert_null(keys);
    cr_assert_not_null(strstr(err.message, part), "\"%s\" lacks \"%s\"", err.message, part);
    cr_assert_null(strstr(err.message, KEY_A), "a key is not for messages");
}

static atedm_clients *clients_of(const char *text)
{
    atedm_clients *clients = NULL;
    cr_assert_eq(atedm_clients_create(&clients), ATEDM_OK);
    atedm_clients_replace(clients, text ? keys_of(text) : NULL, 0);
    return clients;
}

static void expect_access(const atedm_clients *clients, const char *key, int64_t now,
                          atedm_access access, const char *name)
{
    const char *got = NULL;
    cr_assert_eq(atedm_clients_authenticate(clients, key, now, &got), access, "%s", key);
    cr_assert_str_eq(got, name);
}

static void expect_acquire(atedm_clients *clients, const char *name, double now, atedm_quota quota)
{
    double wait_s;
    cr_assert_eq(atedm_clients_acquire(clients, name, now, &wait_s), quota, "%s at %g", name, now);
}

// ---- keys

Test(api_key, hash_is_sha256)
{
    atedm_api_key_hash hash;
    char text[ATEDM_API_KEY_HASH_SIZE];
    cr_assert_eq(atedm_api_key_hash_of(KEY_A, &hash, NULL), ATEDM_OK);
    atedm_api_key_hash_text(&hash, text);
    cr_assert_str_eq(text, HASH_A);
    atedm_api_key_hash again;
    cr_assert_eq(atedm_api_key_hash_read(text, &again, NULL), ATEDM_OK);
    cr_assert(atedm_api_key_hash_equal(&hash, &again));
    for (size_t i = 0; i < sizeof hash.bytes; i++) {
        again = hash;
        again.bytes[i] ^= 1;
        cr_assert_not(atedm_api_key_hash_equal(&hash, &again));
    }
}

Test(api_key, keys_are_long_and_differ)
{
    char keys[64][ATEDM_API_KEY_SIZE];
    for (size_t i = 0; i < 64; i++) {
        atedm_api_key_hash hash;
        cr_assert_eq(atedm_api_key_make(keys[i], NULL), ATEDM_OK);
        cr_assert_eq(strlen(keys[i]), ATEDM_API_KEY_SIZE - 1);
        cr_assert_eq(atedm_api_key_hash_of(keys[i], &hash, NULL), ATEDM_OK);
        for (size_t j = 0; j < i; j++)
            cr_assert_str_neq(keys[i], keys[j]);
    }
}

Test(api_key, other_forms_are_no_keys)
{
    const char *const wrong[] = {
        "",
        "atedm_",
        "atedm_00",
        KEY_A "0",
        " " KEY_A,
        "atedm_000000000000000000000000000000000000000000000000000000000000"
        "000G",
        "Atedm_000000000000000000000000000000000000000000000000000000000000"
        "0001"};
    atedm_api_key_hash hash;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        cr_assert_eq(atedm_api_key_hash_of(wrong[i], &hash, NULL), ATEDM_ERR_INVALID, "%s",
                     wrong[i]);
}

// ---- the file

Test(client_keys, whole)
{
    atedm_client_keys *keys =
        keys_of(KEYS(ALICE ", \"requests_per_minute\": 60, \"burst\": 10, \"max_queued\": 8, "
                           "\"max_priority\": -1, \"admin\": true, \"disabled\": true, "
                           "\"expires\": \"2027-01-01T00:00:00Z\"}, " BOB "}"));
    const atedm_client_key *alice = &keys->first->key, *bob = &keys->first->next->key;
    cr_assert_str_eq(alice->name, "alice");
    cr_assert_eq(alice->requests_per_minute, 60);
    cr_assert_eq(alice->burst, 10);
    cr_assert_eq(alice->max_queued, 8);
    cr_assert_eq(alice->max_priority, -1);
    cr_assert(alice->admin && alice->disabled);
    cr_assert_eq(alice->expires, 1798761600);
    cr_assert_str_eq(bob->name, "bob");
    cr_assert_eq(bob->requests_per_minute, 0);
    cr_assert_eq(bob->max_queued, 0);
    cr_assert_eq(bob->max_priority, 10);
    cr_assert_not(bob->admin || bob->disabled);
    cr_assert_eq(bob->expires, INT64_MAX);
    cr_assert_null(keys->first->next->next);
    atedm_client_keys_destroy(keys);
    keys = keys_of(KEYS(ALICE ", \"requests_per_minute\": 60}"));
    cr_assert_eq(keys->first->key.burst, 60, "a minute's requests may come at once");
    atedm_client_keys_destroy(keys);
}

Test(client_keys, no_file_and_no_keys_differ)
{
    atedm_client_keys *keys = (atedm_client_keys *)"";
    cr_assert_eq(atedm_client_keys_read("", &keys, NULL), ATEDM_OK);
    cr_assert_null(keys);
    keys = keys_of(KEYS(""));
    cr_assert_not_null(keys);
    atedm_client_keys_destroy(keys);
}

Test(client_keys, wrong_files)
{
    atedm_client_keys *keys = NULL;
    atedm_error err = {""};
    cr_assert_neq(atedm_client_keys_read("/nonexistent/keys", &keys, &err), ATEDM_OK);
    cr_assert_not_null(strstr(err.message, "/nonexistent/keys"));
    expect_error("{", "/tmp/atedm-keys-");
    expect_error("[]", "not a JSON object");
    expect_error("{}", "\"keys\" is not an array");
    expect_error("{\"keys\": {}}", "\"keys\" is not an array");
    expect_error("{\"keys\": [], \"kyes\": 1}", "no field \"kyes\"");
    expect_error(KEYS("1"), "keys[0]: is not an object");
    expect_error(KEYS(ALICE "}, " BOB ", \"rate\": 1}"), "keys[1]: there is no field \"rate\"");
    expect_error(KEYS("{\"hash\": \"" HASH_A "\"}"), "\"name\" is missing");
    expect_error(KEYS("{\"name\": \"\", \"hash\": \"" HASH_A "\"}"), "\"name\" is not 1..64");
    expect_error(KEYS("{\"name\": \"a b\", \"hash\": \"" HASH_A "\"}"), "\"name\" is not 1..64");
    expect_error(KEYS("{\"name\": \"alice\"}"), "\"hash\" is missing");
    expect_error(KEYS("{\"name\": \"alice\", \"hash\": \"" KEY_A "\"}"), "\"hash\": is not");
    expect_error(KEYS("{\"name\": \"alice\", \"hash\": \"sha256:00\"}"), "\"hash\": is not");
    expect_error(KEYS(ALICE "}, {\"name\": \"alice\", \"hash\": \"" HASH_B "\"}"),
                 "keys[1]: \"name\" is that of another");
    expect_error(KEYS(ALICE "}, {\"name\": \"bob\", \"hash\": \"" HASH_A "\"}"),
                 "keys[1]: \"hash\" is that of another");
}

Test(client_keys, wrong_limits)
{
    expect_error(KEYS(ALICE ", \"requests_per_minute\": 0}"), "not within 1..1000000");
    expect_error(KEYS(ALICE ", \"requests_per_minute\": 1000001}"), "not within 1..1000000");
    expect_error(KEYS(ALICE ", \"requests_per_minute\": 1, \"burst\": 0}"), "\"burst\" is 0");
    expect_error(KEYS(ALICE ", \"requests_per_minute\": 1, \"burst\": 1000001}"), "\"burst\" is");
    expect_error(KEYS(ALICE ", \"burst\": 1}"), "means nothing without");
    expect_error(KEYS(ALICE ", \"max_queued\": 0}"), "\"max_queued\" is 0");
    expect_error(KEYS(ALICE ", \"max_queued\": 1000001}"), "\"max_queued\" is");
    expect_error(KEYS(ALICE ", \"max_priority\": 11}"), "not within -10..10");
    expect_error(KEYS(ALICE ", \"max_priority\": -11}"), "not within -10..10");
    expect_error(KEYS(ALICE ", \"admin\": 1}"), "\"admin\" is not true or false");
    expect_error(KEYS(ALICE ", \"disabled\": \"no\"}"), "\"disabled\" is not true or false");
    const char *const times[] = {"",
                                 "2027-01-01",
                                 "2027-01-01T00:00:00",
                                 "2027-01-01T00:00:00+01:00",
                                 "2027-02-30T00:00:00Z",
                                 "2027-1-1T00:00:00Z",
                                 "2027-01-01T24:00:00Z",
                                 "2027-01-01T00:00:00Z "};
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        char text[512];
        snprintf(text, sizeof text, KEYS(ALICE ", \"expires\": \"%s\"}"), times[i]);
        expect_error(text, "\"expires\" is not a time");
    }
}

Test(client_keys, names_at_their_limit)
{
    char text[512], name[66];
    memset(name, 'n', sizeof name);
    for (int size = 64; size <= 65; size++) {
        snprintf(text, sizeof text, KEYS("{\"name\": \"%.*s\", \"hash\": \"" HASH_A "\"}"), size,
                 name);
        if (size == 65)
            expect_error(text, "\"name\" is not 1..64");
        else
            atedm_client_keys_destroy(keys_of(text));
    }
}

// A file with `count` keys, to be freed.
static char *many(int count)
{
    size_t size = (size_t)count * 128 + 64;
    char *text = malloc(size);
    cr_assert_not_null(text);
    size_t used = (size_t)snprintf(text, size, "{\"keys\": [");
    for (int i = 0; i < count; i++)
        used += (size_t)snprintf(text + used, size - used,
                                 "%s{\"name\": \"n%d\", \"hash\": \"sha256:%064x\"}", i ? "," : "",
                                 i, i);
    snprintf(text + used, size - used, "]}");
    return text;
}

Test(client_keys, number_at_its_limit)
{
    char *text = many(ATEDM_CLIENT_KEYS_MAX);
    atedm_clients *clients = clients_of(text);
    cr_assert_eq(atedm_clients_max_priority(clients, "n1023"), 10);
    atedm_clients_destroy(clients);
    free(text);
    text = many(ATEDM_CLIENT_KEYS_MAX + 1);
    expect_error(text, "1025 keys are more than 1024");
    free(text);
}

// ---- who is let in

Test(clients, without_a_file_everybody_is_anonymous)
{
    atedm_clients *clients = clients_of(NULL);
    expect_access(clients, NULL, 0, ATEDM_ACCESS_GRANTED, "");
    expect_access(clients, "anything", 0, ATEDM_ACCESS_GRANTED, "");
    cr_assert_eq(atedm_clients_max_priority(clients, ""), 10);
    cr_assert(atedm_clients_is_admin(clients, ""));
    for (int i = 0; i < 100; i++)
        expect_acquire(clients, "", 0, ATEDM_QUOTA_FREE);
    atedm_clients_destroy(clients);
    atedm_clients_destroy(NULL);
    atedm_client_keys_destroy(NULL);
}

Test(clients, access)
{
    atedm_clients *clients =
        clients_of(KEYS(ALICE ", \"expires\": \"1970-01-01T00:01:40Z\", \"max_priority\": 2}, " BOB
                              ", \"admin\": true, \"disabled\": true}"));
    expect_access(clients, NULL, 0, ATEDM_ACCESS_NO_KEY, "");
    expect_access(clients, "", 0, ATEDM_ACCESS_UNKNOWN, "");
    expect_access(clients, HASH_A, 0, ATEDM_ACCESS_UNKNOWN, "");
    expect_access(clients, KEY_A "0", 0, ATEDM_ACCESS_UNKNOWN, "");
    expect_access(clients, KEY_A, 99, ATEDM_ACCESS_GRANTED, "alice");
    expect_access(clients, KEY_A, 100, ATEDM_ACCESS_EXPIRED, "alice");
    expect_access(clients, KEY_B, 0, ATEDM_ACCESS_DISABLED, "bob");
    cr_assert_eq(atedm_clients_max_priority(clients, "alice"), 2);
    cr_assert_eq(atedm_clients_max_priority(clients, ""), 0, "nobody in particular");
    cr_assert(atedm_clients_is_admin(clients, "bob"));
    cr_assert_not(atedm_clients_is_admin(clients, "alice"));
    cr_assert_not(atedm_clients_is_admin(clients, ""));
    atedm_clients_destroy(clients);
}

Test(clients, a_file_without_keys_lets_nobody_in)
{
    atedm_clients *clients = clients_of(KEYS(""));
    expect_access(clients, KEY_A, 0, ATEDM_ACCESS_UNKNOWN, "");
    expect_acquire(clients, "", 0, ATEDM_QUOTA_NOBODY);
    atedm_clients_destroy(clients);
}

// ---- rate

Test(clients, rate)
{
    atedm_clients *clients =
        clients_of(KEYS(ALICE ", \"requests_per_minute\": 30, \"burst\": 2}, " BOB "}"));
    double wait_s = -1;
    expect_acquire(clients, "alice", 0, ATEDM_QUOTA_OK);
    expect_acquire(clients, "alice", 0, ATEDM_QUOTA_OK);
    cr_assert_eq(atedm_clients_acquire(clients, "alice", 0, &wait_s), ATEDM_QUOTA_RATE);
    cr_assert_float_eq(wait_s, 2, 1e-9);
    cr_assert_eq(atedm_clients_acquire(clients, "alice", 0.5, &wait_s), ATEDM_QUOTA_RATE);
    cr_assert_float_eq(wait_s, 1.5, 1e-9, "what was refused costs nothing");
    expect_acquire(clients, "alice", 2, ATEDM_QUOTA_OK);
    expect_acquire(clients, "alice", 2, ATEDM_QUOTA_RATE);
    // Rest fills it to the burst, not beyond.
    for (int i = 0; i < 2; i++)
        expect_acquire(clients, "alice", 1e6, ATEDM_QUOTA_OK);
    expect_acquire(clients, "alice", 1e6, ATEDM_QUOTA_RATE);
    // Ends of requests give no tokens back; and one client's are not another's.
    for (int i = 0; i < 5; i++)
        atedm_clients_release(clients, "alice");
    expect_acquire(clients, "alice", 1e6, ATEDM_QUOTA_RATE);
    for (int i = 0; i < 100; i++)
        expect_acquire(clients, "bob", 1e6, ATEDM_QUOTA_OK);
    atedm_clients_destroy(clients);
}

Test(clients, waiting_as_told_is_enough)
{
    atedm_clients *clients = clients_of(KEYS(ALICE ", \"requests_per_minute\": 7, \"burst\": 1}"));
    double now = 12345.678, wait_s = 0;
    expect_acquire(clients, "alice", now, ATEDM_QUOTA_OK);
    for (int i = 0; i < 10000; i++) {
        now += 0.123;
        if (atedm_clients_acquire(clients, "alice", now, &wait_s) == ATEDM_QUOTA_OK)
            continue;
        now += wait_s;
        expect_acquire(clients, "alice", now, ATEDM_QUOTA_OK);
    }
    atedm_clients_destroy(clients);
}

// ---- open requests

Test(clients, quota)
{
    atedm_clients *clients = clients_of(
        KEYS(ALICE ", \"max_queued\": 2, \"requests_per_minute\": 3, \"burst\": 3}, " BOB "}"));
    expect_acquire(clients, "alice", 0, ATEDM_QUOTA_OK);
    expect_acquire(clients, "alice", 0, ATEDM_QUOTA_OK);
    expect_acquire(clients, "alice", 0, ATEDM_QUOTA_OPEN);
    expect_acquire(clients, "bob", 0, ATEDM_QUOTA_OK);
    cr_assert_eq(atedm_clients_open(clients, "alice"), 2);
    atedm_clients_release(clients, "alice");
    expect_acquire(clients, "alice", 0, ATEDM_QUOTA_OK);
    atedm_clients_release(clients, "alice");
    expect_acquire(clients, "alice", 0, ATEDM_QUOTA_RATE);
    cr_assert_eq(atedm_clients_open(clients, "alice"), 1, "what is refused is not open");
    atedm_clients_release(clients, "alice");
    cr_assert_eq(atedm_clients_open(clients, "alice"), 0);
    atedm_clients_release(clients, "nobody");
    expect_acquire(clients, "nobody", 0, ATEDM_QUOTA_NOBODY);
    atedm_clients_destroy(clients);
}

// ---- new keys

static void replace(atedm_clients *clients, const char *text, double now, const char *changes)
{
    atedm_client_keys *keys = text ? keys_of(text) : NULL;
    atedm_buffer buffer;
    atedm_buffer_init(&buffer, 4096);
    cr_assert_eq(atedm_clients_describe(clients, keys, &buffer), ATEDM_OK);
    cr_assert_str_eq(buffer.data ? buffer.data : "", changes);
    atedm_buffer_finish(&buffer);
    atedm_clients_replace(clients, keys, now);
}

Test(clients, changes_are_described)
{
    atedm_clients *clients = clients_of(NULL);
    replace(clients, NULL, 0, "");
    replace(clients, KEYS(ALICE "}, " BOB "}"), 0, "added alice, bob; now asked for");
    replace(clients, KEYS(BOB "}, " ALICE "}"), 0, "");
    replace(clients, KEYS(ALICE ", \"admin\": true}, " BOB ", \"max_queued\": 1}"), 0,
            "changed bob, alice");
    replace(clients, KEYS("{\"name\": \"carol\", \"hash\": \"" HASH_A "\"}"), 0,
            "added carol; removed alice, bob");
    replace(clients, KEYS(""), 0, "removed carol");
    replace(clients, NULL, 0, "no more asked for");
    atedm_clients_destroy(clients);
}

Test(clients, new_keys_leave_counts_and_buckets)
{
    atedm_clients *clients = clients_of(
        KEYS(ALICE ", \"max_queued\": 1}, " BOB ", \"requests_per_minute\": 60, \"burst\": 5}"));
    expect_acquire(clients, "alice", 0, ATEDM_QUOTA_OK);
    for (int i = 0; i < 5; i++)
        expect_acquire(clients, "bob", 0, ATEDM_QUOTA_OK);
    // alice gets bob's hash: the name is the client.
    replace(clients,
            KEYS("{\"name\": \"alice\", \"hash\": \"" HASH_B "\", \"max_queued\": 1}, "
                 "{\"name\": \"bob\", \"hash\": \"" HASH_A
                 "\", \"requests_per_minute\": 6, \"burst\": 2}"),
            1, "changed alice, bob");
    expect_access(clients, KEY_B, 0, ATEDM_ACCESS_GRANTED, "alice");
    expect_acquire(clients, "alice", 1, ATEDM_QUOTA_OPEN);
    // A second at the old rate gave one; a reload gives none.
    expect_acquire(clients, "bob", 1, ATEDM_QUOTA_OK);
    expect_acquire(clients, "bob", 1, ATEDM_QUOTA_RATE);
    expect_acquire(clients, "bob", 10.9, ATEDM_QUOTA_RATE);
    expect_acquire(clients, "bob", 11, ATEDM_QUOTA_OK);
    cr_assert_eq(atedm_clients_open(clients, "bob"), 7);
    atedm_clients_destroy(clients);
}

Test(clients, one_that_is_gone_gives_back)
{
    atedm_clients *clients = clients_of(KEYS(ALICE ", \"max_queued\": 2}, " BOB "}"));
    expect_acquire(clients, "alice", 0, ATEDM_QUOTA_OK);
    expect_acquire(clients, "alice", 0, ATEDM_QUOTA_OK);
    replace(clients, KEYS(BOB "}"), 0, "removed alice");
    expect_access(clients, KEY_A, 0, ATEDM_ACCESS_UNKNOWN, "");
    expect_acquire(clients, "alice", 0, ATEDM_QUOTA_NOBODY);
    replace(clients, KEYS(BOB "}"), 0, "");
    atedm_clients_release(clients, "alice");
    cr_assert_eq(atedm_clients_open(clients, "alice"), 1);
    // It comes back, and one is still open.
    replace(clients, KEYS(ALICE ", \"max_queued\": 2}"), 0, "added alice; removed bob");
    expect_access(clients, KEY_A, 0, ATEDM_ACCESS_GRANTED, "alice");
    expect_acquire(clients, "alice", 0, ATEDM_QUOTA_OK);
    expect_acquire(clients, "alice", 0, ATEDM_QUOTA_OPEN);
    // Keys are not asked for any more, and then again.
    replace(clients, NULL, 0, "removed alice; no more asked for");
    expect_acquire(clients, "", 0, ATEDM_QUOTA_FREE);
    atedm_clients_release(clients, "alice");
    atedm_clients_release(clients, "alice");
    atedm_clients_release(clients, "alice");
    cr_assert_eq(atedm_clients_open(clients, "alice"), 0);
    atedm_clients_destroy(clients);
}
