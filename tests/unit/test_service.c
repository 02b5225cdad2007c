// When the watchdog is fed, the line for people, and what the environment says of the manager.
#include "server/service.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atedm_service_view at_work(void)
{
    return (atedm_service_view){
        .model = "demo",
        .loaded = true,
        .state = {.active = 2, .depth = 3, .ready = 1},
        .workers = 2,
        .worker_timeout_s = 600,
    };
}

static void expect_status(const atedm_service_view *view, const char *expected)
{
    char text[ATEDM_SERVICE_STATUS_MAX];
    atedm_service_describe(view, text);
    cr_expect_str_eq(text, expected);
}

Test(service, idle_is_well)
{
    atedm_service_view view = at_work();
    view.state = (atedm_dispatch_state){.ready = 2};
    cr_expect(atedm_service_is_well(&view));
    expect_status(&view, "2 of 2 workers up, 0 requests running, 0 waiting");
}

Test(service, silence_has_a_limit)
{
    atedm_service_view view = at_work();
    view.state.silence_s = 600 + ATEDM_SERVICE_SILENCE_S;
    cr_expect(atedm_service_is_well(&view));
    expect_status(&view, "1 of 2 workers up, 2 requests running, 3 waiting");
    view.state.silence_s += 0.5;
    cr_expect_not(atedm_service_is_well(&view));
    view.state.silence_s = 700;
    expect_status(&view, "A worker has said nothing for 700 s though it has to");
    view.worker_timeout_s = 1000; // a reload may raise it
    cr_expect(atedm_service_is_well(&view));
}

Test(service, ages)
{
    atedm_service_view view = at_work();
    view.loaded = false;
    expect_status(&view, "Loads the model demo");
    view.draining = true;
    view.drain_left_s = 12.1;
    expect_status(&view, "Finishes 2 running and 3 waiting requests, for 13 s at most");
    view.drain_left_s = -3;
    expect_status(&view, "Finishes 2 running and 3 waiting requests, for 0 s at most");
}

// The model's folder names it: what is in there is no word to the service manager.
Test(service, names)
{
    char name[2 * ATEDM_SERVICE_STATUS_MAX];
    atedm_service_view view = at_work();
    view.loaded = false;
    view.model = "a\nREADY=1\r";
    expect_status(&view, "Loads the model a READY=1 ");
    memset(name, 'x', sizeof name);
    name[sizeof name - 1] = '\0';
    view.model = name;
    char text[ATEDM_SERVICE_STATUS_MAX];
    atedm_service_describe(&view, text);
    cr_expect_eq(strlen(text), ATEDM_SERVICE_STATUS_MAX - 1);
}

static double watchdog(const char *usec, const char *pid)
{
    atedm_notify notify;
    setenv("NOTIFY_SOCKET", "/nowhere", 1);
    setenv("WATCHDOG_USEC", usec, 1);
    if (pid)
        setenv("WATCHDOG_PID", pid, 1);
    else
        unsetenv("WATCHDOG_PID");
    atedm_notify_init(&notify);
    cr_expect_geq(notify.fd, 0);
    cr_expect_not(atedm_notify_send(&notify, "READY=1")); // nobody is there, which is no fault
    double seconds = notify.watchdog_s;
    atedm_notify_finish(&notify);
    cr_expect_eq(notify.fd, -1);
    return seconds;
}

Test(notify, watchdog)
{
    char self[16];
    snprintf(self, sizeof self, "%d", (int)getpid());
    cr_expect_float_eq(watchdog("30000000", NULL), 30, 1e-9);
    cr_expect_float_eq(watchdog("1500000", self), 1.5, 1e-9);
    cr_expect_eq(watchdog("30000000", "1"), 0); // somebody else is meant
    const char *const nothing[] = {"", "0", "-1", " 1", "1 s", "99999999999999999999999"};
    for (size_t i = 0; i < sizeof nothing / sizeof *nothing; i++)
        cr_expect_eq(watchdog(nothing[i], NULL), 0, "%s", nothing[i]);
    cr_expect_eq(watchdog("30000000", "nobody"), 0);
}

Test(notify, nobody)
{
    const char *const names[] = {"", "relative", "vsock:2:1"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        atedm_notify notify;
        setenv("NOTIFY_SOCKET", names[i], 1);
        setenv("WATCHDOG_USEC", "1000", 1);
        atedm_notify_init(&notify);
        cr_expect_eq(notify.fd, -1, "%s", names[i]);
        cr_expect_eq(notify.watchdog_s, 0);
    }
}
