// `atedm key`: makes an API key for the daemon, and the entry for the daemon's key file.
#include "cli/cli.h"
#include "config/api_key.h"

#include <stdio.h>
#include <string.h>

static const char help[] =
    "usage: atedm key [OPTION...]\n"
    "\n"
    "Makes an API key. It is shown this once: the entry for the key file of atedmd (option\n"
    "api_keys) has only its hash.\n"
    "\n"
    "  --name NAME               whose it is, 1..64 of A-Z a-z 0-9 . _ -; default: from the hash\n"
    "  --json                    report as JSON\n"
    "  --help, --version\n";

enum { OPTION_NAME, OPTION_JSON };

static const struct option options_table[] = {
    {"name", required_argument, NULL, OPTION_NAME},
    {"json", no_argument, NULL, OPTION_JSON},
    ATEDM_CLI_COMMON_OPTIONS,
    {NULL, 0, NULL, 0},
};

typedef struct key_options {
    const char *name; // NULL: make it from the hash
    bool json;
} key_options;

static const atedm_cli_command command = {
    .name = "key", .help = help, .options = options_table, .letters = "h"};

// Returns true if a key is to be made. Otherwise *ret_exit is the exit status.
static bool parse(int argc, char **argv, key_options *ret_options, int *ret_exit)
{
    key_options o = {.name = NULL};
    int option;
    while ((option = atedm_cli_next_option(&command, argc, argv, ret_exit)) >= 0) {
        if (option == OPTION_NAME)
            o.name = optarg;
        else
            o.json = true;
    }
    if (option == ATEDM_CLI_STOP)
        return false;
    if (o.name && !atedm_client_name_is_valid(o.name))
        *ret_exit = atedm_cli_usage("key", "--name: is not 1..%d of A-Z a-z 0-9 . _ -",
                                    ATEDM_CLIENT_NAME_MAX);
    if (*ret_exit)
        return false;
    *ret_options = o;
    return true;
}

int atedm_cli_key(int argc, char **argv)
{
    key_options options;
    int result;
    if (!parse(argc, argv, &options, &result))
        return result;
    atedm_error err = {""};
    char key[ATEDM_API_KEY_SIZE];
    atedm_api_key_hash hash;
    if (atedm_api_key_make(key, &err) || atedm_api_key_hash_of(key, &hash, &err))
        return atedm_cli_failed("key", &err);
    char hash_text[ATEDM_API_KEY_HASH_SIZE];
    atedm_api_key_hash_text(&hash, hash_text);
    char name[ATEDM_CLIENT_NAME_MAX + 1];
    if (options.name)
        snprintf(name, sizeof name, "%s", options.name);
    else
        snprintf(name, sizeof name, "key-%.8s", strchr(hash_text, ':') + 1);
    if (options.json)
        return atedm_cli_print_json("key", json_pack("{s:s, s:{s:s, s:s}}", "key", key, "entry",
                                                     "name", name, "hash", hash_text));
    printf("%s\n{\"name\": \"%s\", \"hash\": \"%s\"}\n", key, name, hash_text);
    if (fflush(stdout) == 0)
        return 0;
    return atedm_cli_failed("key", &(atedm_error){"the key could not be written"});
}
