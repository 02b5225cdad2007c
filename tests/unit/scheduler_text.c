// A scheduler_config.json out of a string: see scheduler_text.h.
#include "scheduler_text.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

atedm_status scheduler_text_read(const char *text, atedm_scheduler_config *ret_config,
                                 atedm_error *err)
{
    char path[] = "/tmp/atedm-scheduler-XXXXXX";
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    atedm_status status = atedm_scheduler_config_read(path, ret_config, err);
    unlink(path);
    return status;
}
