// Deliberate faults: see fault.h. Only builds for tests contain this file.
#include "server/fault.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PREFIX "fault: "

static void hang(void)
{
    for (;;)
        pause();
}

// Ends with status 0, as if all were well.
static void leave(void)
{
    _exit(0);
}

static void access_nothing(void)
{
    raise(SIGSEGV);
}

// When memory has run out, the kernel kills a process like this, without a warning.
static void run_out_of_memory(void)
{
    raise(SIGKILL);
}

void atedm_fault_strike(const char *prompt)
{
    static const struct {
        const char *name;
        void (*strike)(void);
    } faults[] = {
        {"abort", abort}, {"segv", access_nothing},   {"exit", leave},
        {"hang", hang},   {"oom", run_out_of_memory},
    };
    if (strncmp(prompt, PREFIX, strlen(PREFIX)) != 0)
        return;
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        if (strcmp(prompt + strlen(PREFIX), faults[i].name) == 0)
            faults[i].strike();
}
