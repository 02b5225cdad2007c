// When the watchdog is fed, and the line for people.
#include "server/service.h"

#include <criterion/criterion.h>
#include <string.h>

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
