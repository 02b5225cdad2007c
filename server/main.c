// `atedmd`: reads the configuration and runs the daemon.
#include "config/config.h"
#include "core/base/exit_status.h"
#include "core/base/file.h"
#include "server/daemon.h"

#include <signal.h>
#include <stdio.h>

extern char **environ;

static int print_help(void)
{
    atedm_buffer text;
    atedm_buffer_init(&text, 1u << 20);
    int result = atedm_config_help(&text) ? ATEDM_EXIT_FAILED : 0;
    if (!result)
        fputs(text.data, stdout);
    atedm_buffer_finish(&text);
    return result;
}

// Flushes standard output: only this may show that it could not be written.
static int end_output(int result)
{
    return fflush(stdout) || ferror(stdout) ? ATEDM_EXIT_FAILED : result;
}

// Blocks SIGHUP until the daemon handles it; by default it would end the process during the start.
static void hold_reloads(void)
{
    sigset_t reload;
    sigemptyset(&reload);
    sigaddset(&reload, SIGHUP);
    sigprocmask(SIG_BLOCK, &reload, NULL);
}

int main(int argc, char **argv)
{
    static atedm_config config;
    atedm_config_action action;
    atedm_error err = {""};
    atedm_config_source source = {.argc = argc, .argv = argv, .environment = environ};
    hold_reloads();
    if (atedm_standard_files_open())
        return ATEDM_EXIT_FAILED;
    if (atedm_config_load(argc, argv, environ, &config, &action, &err)) {
        fprintf(stderr, "atedmd: %s\nTry 'atedmd --help'.\n", err.message);
        return ATEDM_EXIT_USAGE;
    }
    if (action == ATEDM_CONFIG_HELP)
        return end_output(print_help());
    if (action == ATEDM_CONFIG_VERSION) {
        puts("atedmd " ATEDM_VERSION);
        return end_output(0);
    }
    signal(SIGPIPE, SIG_IGN); // writes report clients that have gone away
    signal(SIGXFSZ, SIG_IGN); // a write beyond a file size limit fails instead
    return atedm_daemon_run(&source, &config);
}
