// Faults on purpose, for tests: what the prompt of a request makes its worker do to itself. There
// is nothing of it in a program that was not built with -Dfault_injection=true.
#ifndef ATEDM_FAULT_H
#define ATEDM_FAULT_H

#ifdef ATEDM_FAULT_INJECTION
// Called when a request is about to start. Prompts "fault: abort", "fault: segv", "fault: exit",
// "fault: oom" end the process, "fault: hang" never returns; with any other nothing happens.
void atedm_fault_strike(const char *prompt);
#else
static inline void atedm_fault_strike(const char *prompt)
{
    (void)prompt;
}
#endif

#endif
