// Exit statuses of the programs; 0 is success. What else a program has is its own.
#ifndef ATEDM_BASE_EXIT_STATUS_H
#define ATEDM_BASE_EXIT_STATUS_H

#define ATEDM_EXIT_FAILED 1
#define ATEDM_EXIT_USAGE 2 // options, operands or configuration are wrong

#endif
