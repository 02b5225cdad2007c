// `atedm`, the command line program: runs the subcommand.
#include "cli/cli.h"
#include "cli/inspect.h"
#include "cli/request.h"
#include "core/base/file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} commands[] = {
    {"generate", atedm_cli_generate, "make a picture from a prompt, in this process"},
    {"request", atedm_cli_request, "make a picture from a prompt, by a running daemon"},
    {"inspect", atedm_cli_inspect, "what a model is made of, and what a request costs"},
    {"mkmodel", atedm_cli_mkmodel, "write a model with seeded random weights"},
    {"key", atedm_cli_key, "make an API key for the daemon"},
    {"bench", atedm_cli_bench, "time denoising steps on this machine; put load on a daemon"},
};
#define N_COMMANDS (sizeof commands / sizeof *commands)

static void print_help(FILE *out)
{
    fputs("usage: atedm COMMAND [OPTION...]\n\n"
          "Text to pictures with SDXL, its attention pruned as AT-EDM does.\n\n",
          out);
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fputs("\n  --help     this text; after a command, its options\n"
          "  --version  the version of this program\n",
          out);
}

static int run(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stderr);
        return ATEDM_EXIT_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        print_help(stdout);
        return 0;
    }
    if (strcmp(name, "--version") == 0) {
        atedm_cli_print_version();
        return 0;
    }
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(name, commands[i].name) == 0) {
            char title[32];
            snprintf(title, sizeof title, "atedm %s", name);
            argv[1] = title; // getopt begins its messages with it
            return commands[i].run(argc - 1, argv + 1);
        }
    }
    fprintf(stderr, "atedm: there is no command \"%s\"\nTry 'atedm --help'.\n", name);
    return ATEDM_EXIT_USAGE;
}

int main(int argc, char **argv)
{
    if (atedm_standard_files_open())
        return ATEDM_EXIT_FAILED;
    int result = run(argc, argv);
    // Output is buffered, so a failure to write it may show only now.
    if ((fflush(stdout) || ferror(stdout)) && result == 0) {
        fprintf(stderr, "atedm: standard output: %s\n", strerror(errno));
        result = ATEDM_EXIT_FAILED;
    }
    return result;
}
