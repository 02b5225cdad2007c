// `atedm key`: a new API key for the daemon, and the entry of its key file that lets it in.
#include "cli/cli.h"
#include "config/api_key.h"

#include <getopt.h>
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

enum { OPTION_NAME, OPTION_JSON, OPTION_HELP, OPTION_VERSION };

static const struct option options_table[] = {
    {"name", required_argument, NULL, OPTION_NAME},
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, OPTION_HELP},
    {"version", no_argument, NULL, OPTION_VERSION},
    {NULL, 0, NULL, 0},
};

typedef struct key_options {
    const char *name; // NULL: from the hash
    bool json;
} key_options;

// Returns true where there is a key to make; otherwise *ret_exit has the exit status.
static bool parse(int argc, char **argv, key_options *ret_options, int *ret_exit)
{
    key_options o = {.name = NULL};
    int option;
    *ret_exit = 0;
    while ((option = getopt_long(argc, argv, "h", options_table, NULL)) != -1) {
        switch (option) {
        case OPTION_NAME:
            o.name = optarg;
            break;
        case OPTION_JSON:
            o.json = true;
            break;
        case OPTION_HELP:
        case 'h':
            fputs(help, stdout);
            return false;
        case OPTION_VERSION:
            atedm_cli_print_version();
            return false;
        default:
            *ret_exit = atedm_cli_bad_option("key");
            return false;
        }
    }
    if (o.name && !atedm_client_name_is_valid(o.name))
        *ret_exit = atedm_cli_usage("key", "--name: is not 1..%d of A-Z a-z 0-9 . _ -",
                                    ATEDM_CLIENT_NAME_MAX);
    else if (optind != argc)
        *ret_exit = atedm_cli_usage("key", "\"%s\" is one word too many", argv[optind]);
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
