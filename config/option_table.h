// The table of the daemon's options, which serves the file, the environment, the command line and
// --help alike.
#ifndef ATEDM_OPTION_TABLE_H
#define ATEDM_OPTION_TABLE_H

#include <stdbool.h>
#include <stddef.h>

typedef enum atedm_option_type {
    ATEDM_OPTION_TEXT,
    ATEDM_OPTION_OPTIONAL, // text, may be empty
    ATEDM_OPTION_CHOICE,   // one of `choices`
    ATEDM_OPTION_INTEGER,
    ATEDM_OPTION_REAL,
    ATEDM_OPTION_BOOL,
    ATEDM_OPTION_PRUNING, // text; in the file it may also be an object
} atedm_option_type;

// `name` is the option's key in the file. The variable ATEDM_NAME and the flag --name (with dashes)
// are derived from it.
typedef struct atedm_option {
    const char *name;
    atedm_option_type type;
    size_t offset, size; // of its field in atedm_config
    bool live;           // a reload can change it
    const char *initial; // its default, as text
    double min, max;     // of numbers
    const char *choices; // separated by |
    const char *value;   // placeholder for the value in --help
    const char *help;
} atedm_option;

#define ATEDM_N_OPTIONS 32
extern const atedm_option atedm_options[];

#endif
