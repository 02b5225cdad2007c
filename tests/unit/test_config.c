// The daemon's configuration: defaults, precedence of file, environment and flags, and a message
// that names the place for everything that is wrong.
#include "config/config.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_WORDS 8

typedef struct outcome {
    atedm_status status;
    atedm_config config;
    atedm_config_action action;
    atedm_error err;
} outcome;

// Loads with the given flags and environment (each ends with NULL).
static outcome load(const char *const *flags, const char *const *environment)
{
    const char *argv[MAX_WORDS + 1] = {"atedmd"};
    int argc = 1;
    for (; flags && *flags; flags++)
        argv[argc++] = *flags;
    static const char *const nothing[] = {NULL};
    outcome o = {.status = ATEDM_OK};
    o.status = atedm_config_load(argc, (char *const *)argv,
                                 (char *const *)(environment ? environment : nothing), &o.config,
                                 &o.action, &o.err);
    return o;
}

#define FLAGS(...) ((const char *const[]){__VA_ARGS__, NULL})

static char *make_file(const char *text)
{
    static char path[64];
    snprintf(path, sizeof path, "/tmp/atedm-config-XXXXXX");
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    return path;
}

static outcome load_file(const char *text)
{
    char *path = make_file(text);
    outcome o = load(FLAGS("--config", path), NULL);
    unlink(path);
    return o;
}

static void expect_error(outcome o, const char *part)
{
    cr_assert_neq(o.status, ATEDM_OK, "expected an error with \"%s\"", part);
    cr_assert_not_null(strstr(o.err.message, part), "\"%s\" lacks \"%s\"", o.err.message, part);
}

Test(config, defaults)
{
    outcome o = load(NULL, NULL);
    cr_assert_eq(o.status, ATEDM_OK, "%s", o.err.message);
    cr_assert_eq(o.action, ATEDM_CONFIG_RUN);
    cr_assert_str_eq(o.config.listen, "127.0.0.1:8080");
    cr_assert_str_eq(o.config.model, "models/demo");
    cr_assert_str_eq(o.config.backend, "auto");
    cr_assert_str_eq(o.config.default_pruning, "at-edm-dagger");
    cr_assert_eq(o.config.queue_limit, 64);
    cr_assert_eq(o.config.max_body_bytes, 1048576);
    cr_assert_float_eq(o.config.connection_timeout_s, 60, 0);
}

Test(config, the_default_file_says_the_defaults)
{
    const char *root = getenv("ATEDM_SOURCE_DIR");
    cr_assert_not_null(root);
    char path[4096];
    snprintf(path, sizeof path, "%s/config/atedmd.json", root);
    outcome file = load(FLAGS("--config", path), NULL);
    cr_assert_eq(file.status, ATEDM_OK, "%s", file.err.message);
    atedm_config none = load(NULL, NULL).config;
    const char *const texts[][2] = {{file.config.model, none.model},
                                    {file.config.listen, none.listen},
                                    {file.config.backend, none.backend},
                                    {file.config.dtype, none.dtype},
                                    {file.config.default_pruning, none.default_pruning},
                                    {file.config.api_keys, none.api_keys},
                                    {file.config.log_format, none.log_format},
                                    {file.config.log_level, none.log_level}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        cr_assert_str_eq(texts[i][0], texts[i][1]);
    cr_assert_eq(file.config.queue_limit, none.queue_limit);
    cr_assert_eq(file.config.max_area, none.max_area);
    cr_assert_eq(file.config.max_images, none.max_images);
    cr_assert_eq(file.config.max_steps, none.max_steps);
    cr_assert_eq(file.config.max_body_bytes, none.max_body_bytes);
    cr_assert_eq(file.config.max_unread_bytes, none.max_unread_bytes);
    cr_assert_eq(file.config.max_connections, none.max_connections);
    cr_assert_float_eq(file.config.drain_timeout_s, none.drain_timeout_s, 0);
    cr_assert_float_eq(file.config.connection_timeout_s, none.connection_timeout_s, 0);
}

Test(config, flags_over_environment_over_file)
{
    char *path = make_file("{\"queue_limit\": 1, \"max_images\": 1, \"listen\": \"a:1\"}");
    outcome o = load(FLAGS("--listen=c:3", "--config", path),
                     FLAGS("ATEDM_MAX_IMAGES=2", "ATEDM_LISTEN=b:2", "ATEDM_MAX_AREA=", "OTHER=1"));
    unlink(path);
    cr_assert_eq(o.status, ATEDM_OK, "%s", o.err.message);
    cr_assert_eq(o.config.queue_limit, 1);
    cr_assert_eq(o.config.max_images, 2);
    cr_assert_str_eq(o.config.listen, "c:3");
    cr_assert_eq(o.config.max_area, 2359296, "an empty variable counts as absent");
}

Test(config, file_named_by_the_environment)
{
    char *path = make_file("{\"queue_limit\": 7, \"connection_timeout_s\": 2.5}");
    char variable[128];
    snprintf(variable, sizeof variable, "ATEDM_CONFIG=%s", path);
    outcome o = load(NULL, FLAGS(variable));
    unlink(path);
    cr_assert_eq(o.status, ATEDM_OK, "%s", o.err.message);
    cr_assert_eq(o.config.queue_limit, 7);
    cr_assert_float_eq(o.config.connection_timeout_s, 2.5, 0);
}

Test(config, default_pruning_as_text_or_object)
{
    outcome o = load_file("{\"default_pruning\": \"off\"}");
    cr_assert_eq(o.status, ATEDM_OK);
    cr_assert_str_eq(o.config.default_pruning, "off");
    o = load_file("{\"default_pruning\": {\"ratio\": 0.5}}");
    cr_assert_eq(o.status, ATEDM_OK, "%s", o.err.message);
    cr_assert_str_eq(o.config.default_pruning, "{\"ratio\":0.5}");
    expect_error(load_file("{\"default_pruning\": 1}"),
                 "default_pruning: is not a string or an object");
}

Test(config, wrong_files)
{
    expect_error(load_file("{\"queue_limit\": 0}"), "queue_limit: 0 is not within 1..100000");
    expect_error(load_file("{\"queue_limit\": 100001}"), "not within");
    expect_error(load_file("{\"queue_limit\": \"4\"}"), "queue_limit: is not an integer");
    expect_error(load_file("{\"queue_limit\": 4.0}"), "queue_limit: is not an integer");
    expect_error(load_file("{\"connection_timeout_s\": true}"), "is not a number");
    expect_error(load_file("{\"connection_timeout_s\": 0}"), "not within");
    expect_error(load_file("{\"listen\": 8080}"), "listen: is not a string");
    expect_error(load_file("{\"listen\": \"\"}"), "listen: is empty");
    char longest[ATEDM_CONFIG_LISTEN_MAX + 32];
    snprintf(longest, sizeof longest, "{\"listen\": \"%0*d\"}", ATEDM_CONFIG_LISTEN_MAX, 0);
    expect_error(load_file(longest), "listen: has more than 4095 bytes");
    expect_error(load_file("{\"dtype\": \"f64\"}"), "dtype: \"f64\" is not one of auto|f32|bf16");
    expect_error(load_file("{\"dtype\": \"f3\"}"), "not one of");
    expect_error(load_file("{\"dtype\": \"auto|f32\"}"), "not one of");
    expect_error(load_file("{\"queue_limi\": 4}"), "no option \"queue_limi\"");
    expect_error(load_file("{\"config\": \"x\"}"), "no option \"config\"");
    expect_error(load_file("{\"queue_limit\": 4, \"queue_limit\": 5}"), "duplicate");
    expect_error(load_file("[]"), "/tmp/atedm-config-");
    expect_error(load_file("{"), "/tmp/atedm-config-");
    expect_error(load(FLAGS("--config", "/nonexistent/file"), NULL), "/nonexistent/file");
}

Test(config, too_long_a_value)
{
    static char text[6000];
    int size = snprintf(text, sizeof text, "{\"model\": \"");
    memset(text + size, 'x', 5000);
    snprintf(text + size + 5000, 8, "\"}");
    expect_error(load_file(text), "model: has more than 4095 bytes");
}

Test(config, wrong_variables_and_flags)
{
    expect_error(load(NULL, FLAGS("ATEDM_QUEUE_LIMIT=x")),
                 "ATEDM_QUEUE_LIMIT: \"x\" is not an integer");
    expect_error(load(NULL, FLAGS("ATEDM_QUEUE_LIMIT=99999999999999999999")), "ATEDM_QUEUE_LIMIT");
    expect_error(load(FLAGS("--queue-limit", "0"), NULL), "--queue-limit: 0 is not within");
    expect_error(load(FLAGS("--queue-limit="), NULL), "--queue-limit");
    expect_error(load(FLAGS("--connection-timeout-s", "nan"), NULL), "not a number");
    expect_error(load(FLAGS("--queue-limit"), NULL), "--queue-limit needs a value");
    expect_error(load(FLAGS("--queue_limit", "3"), NULL), "no option \"--queue_limit\"");
    expect_error(load(FLAGS("--nonsense", "3"), NULL), "no option \"--nonsense\"");
    expect_error(load(FLAGS("model"), NULL), "\"model\": it takes no operands");
    expect_error(load(FLAGS("--log-level", "loud"), NULL), "--log-level: \"loud\" is not one of");
}

Test(config, text_that_may_be_empty)
{
    cr_assert_str_eq(load(NULL, NULL).config.api_keys, "");
    cr_assert_str_eq(load_file("{\"api_keys\": \"k\"}").config.api_keys, "k");
    outcome o = load(FLAGS("--api-keys="), FLAGS("ATEDM_API_KEYS=k"));
    cr_assert_eq(o.status, ATEDM_OK, "%s", o.err.message);
    cr_assert_str_eq(o.config.api_keys, "", "a flag takes away what the environment says");
    expect_error(load_file("{\"api_keys\": []}"), "api_keys: is not a string");
}

Test(config, drain_timeout)
{
    cr_assert_float_eq(load(NULL, NULL).config.drain_timeout_s, 300, 0);
    cr_assert_float_eq(load(FLAGS("--drain-timeout-s=0"), NULL).config.drain_timeout_s, 0, 0);
    expect_error(load(FLAGS("--drain-timeout-s=-1"), NULL), "not within 0..86400");
    expect_error(load(FLAGS("--drain-timeout-s=86401"), NULL), "not within 0..86400");
}

static void expect_change(const atedm_config_change *change, const char *name, const char *before,
                          const char *after)
{
    cr_assert_str_eq(change->name, name);
    cr_assert_str_eq(change->before, before);
    cr_assert_str_eq(change->after, after);
}

Test(config, changes)
{
    static atedm_config_change changes[ATEDM_CONFIG_MAX_OPTIONS];
    outcome before = load(NULL, NULL);
    outcome after = load_file("{\"queue_limit\": 3, \"worker_timeout_s\": 0.5, \"api_keys\": \"k\","
                              " \"default_pruning\": {\"ratio\": 0.5}, \"listen\": \"a:1\","
                              " \"workers\": 2, \"max_steps\": 150}");
    cr_assert_eq(after.status, ATEDM_OK, "%s", after.err.message);
    cr_assert_eq(atedm_config_changes(&before.config, &before.config, true, changes), 0);
    cr_assert_eq(atedm_config_changes(&before.config, &before.config, false, changes), 0);
    cr_assert_eq(atedm_config_changes(&before.config, &after.config, true, changes), 4);
    expect_change(&changes[0], "default_pruning", "at-edm-dagger", "{\"ratio\":0.5}");
    expect_change(&changes[1], "queue_limit", "64", "3");
    expect_change(&changes[2], "worker_timeout_s", "600", "0.5");
    expect_change(&changes[3], "api_keys", "", "k");
    cr_assert_eq(atedm_config_changes(&before.config, &after.config, false, changes), 2);
    expect_change(&changes[0], "listen", "127.0.0.1:8080", "a:1");
    expect_change(&changes[1], "workers", "1", "2");
    // What is taken over is what was called live, and no more.
    atedm_config_take_live(&before.config, &after.config);
    cr_assert_eq(atedm_config_changes(&before.config, &after.config, true, changes), 0);
    cr_assert_eq(atedm_config_changes(&before.config, &after.config, false, changes), 2);
    cr_assert_eq(before.config.queue_limit, 3);
    cr_assert_str_eq(before.config.listen, "127.0.0.1:8080");
}

Test(config, truth_values)
{
    static atedm_config_change changes[ATEDM_CONFIG_MAX_OPTIONS];
    outcome on = load(NULL, NULL), off = load_file("{\"cancel_on_disconnect\": false}");
    cr_assert(on.config.cancel_on_disconnect);
    cr_assert_not(off.config.cancel_on_disconnect);
    cr_assert_not(load(FLAGS("--cancel-on-disconnect=false"), NULL).config.cancel_on_disconnect);
    expect_error(load(FLAGS("--cancel-on-disconnect=no"), NULL), "is not one of true|false");
    expect_error(load_file("{\"cancel_on_disconnect\": 1}"), "is neither true nor false");
    cr_assert_eq(atedm_config_changes(&on.config, &off.config, true, changes), 1);
    expect_change(&changes[0], "cancel_on_disconnect", "true", "false");
}

Test(config, a_long_value_is_cut_in_a_change)
{
    static atedm_config_change changes[ATEDM_CONFIG_MAX_OPTIONS];
    outcome before = load(NULL, NULL), after = before;
    memset(after.config.api_keys, 'k', sizeof after.config.api_keys - 1);
    cr_assert_eq(atedm_config_changes(&before.config, &after.config, true, changes), 1);
    cr_assert_eq(strlen(changes[0].after), ATEDM_CONFIG_VALUE_MAX - 1);
}

Test(config, help_and_version)
{
    cr_assert_eq(load(FLAGS("--help"), NULL).action, ATEDM_CONFIG_HELP);
    cr_assert_eq(load(FLAGS("--queue-limit", "5", "--version"), NULL).action, ATEDM_CONFIG_VERSION);
    atedm_buffer text;
    atedm_buffer_init(&text, 1U << 20);
    cr_assert_eq(atedm_config_help(&text), ATEDM_OK);
    const char *const parts[] = {"--config FILE", "--queue-limit N", "ATEDM_QUEUE_LIMIT",
                                 "\"queue_limit\"", "default 64"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        cr_assert_not_null(strstr(text.data, parts[i]), "%s", parts[i]);
    atedm_buffer_finish(&text);
}
