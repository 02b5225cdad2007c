// Deliberate faults, for tests: certain prompts make a worker end or hang. Only a program that was
// built with -Dfault_injection=true contains this code.
#ifndef ATEDM_FAULT_H
#define ATEDM_FAULT_H

#ifdef ATEDM_FAULT_INJECTION
// The worker calls this when a request is about to start. The prompts "fault: abort",
// "fault: segv", "fault: exit" and "fault: oom" end the process; "fault: hang" makes the call never
// return. Any other prompt has no effect.
void atedm_fault_strike(const char *prompt);
#else
static inline void atedm_fault_strike(const char *prompt)
{
    (void)prompt;
}
#endif

#endif
