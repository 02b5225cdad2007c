// A picture of a run of `atedm bench serve`: see load_plot.h.
#include "cli/load_plot.h"

#include "cli/cli.h"
#include "cli/svg.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WIDTH 1000
#define HEIGHT 1010
#define LEFT 80
#define INNER 840   // width of a panel
#define COLUMNS 840 // points of a line over time
#define BINS 50     // of the histogram

// Colours that people with the common kinds of colour blindness can distinguish too.
#define OK "#2f6fb5"
#define FAILED "#c8371b"
#define WARM_UP "#a3abb3"
#define OPEN "#7b3f98"
#define QUEUE "#e08214"
#define BAR "#a9c7e6"
#define CURVE "#24292f"

// For text that may lie on lines.
#define HALO "stroke=\"white\" stroke-width=\"4\" paint-order=\"stroke\""

// Marks of legends.
#define DOT "\u25cf"
#define CROSS "\u2715"
#define LINE "\u2014"
#define SQUARE "\u25a0"

typedef struct plot {
    FILE *file;
    const atedm_load_plan *plan;
    const atedm_load_record *record;
    const atedm_load_stats *stats;
    double end_s, slowest_s; // the last answer; the highest latency, including failures
} plot;

static double latency(const atedm_load_sample *s)
{
    return s->done_s - s->due_s;
}

// ---- head

static void draw_head(const plot *p)
{
    const atedm_load_stats *s = p->stats;
    char loop[64];
    if (p->plan->rate > 0)
        snprintf(loop, sizeof loop, "open loop, %g requests/s", p->plan->rate);
    else
        snprintf(loop, sizeof loop, "closed loop, %" PRId64 " clients", p->plan->max_open);
    atedm_svg_text(p->file, LEFT, 34, "font-size=\"18\" font-weight=\"bold\"",
                   "atedm bench serve: %s", loop);
    atedm_svg_text(p->file, LEFT, 56, "fill=\"#6e7781\"",
                   "%.200s, seed %" PRIu64 "; sent %zu, ok %zu, failed %zu; %.4g requests/s, %.4g "
                   "images/s answered%s",
                   p->plan->url, p->plan->seed, s->sent, s->ok, s->failed, s->requests_per_s,
                   s->images_per_s, p->record->interrupted ? "; interrupted" : "");
}

// ---- latency over arrival

static bool is_drawn(const plot *p, size_t i)
{
    size_t stride = (p->record->n + ATEDM_LOAD_MAX_DOTS - 1) / ATEDM_LOAD_MAX_DOTS;
    return i % stride == 0 && !isnan(p->record->samples[i].done_s);
}

static void draw_dots(const plot *p, const atedm_svg_panel *panel, bool warm_up)
{
    fprintf(p->file, "<g fill=\"%s\" fill-opacity=\"0.55\">\n", warm_up ? WARM_UP : OK);
    for (size_t i = 0; i < p->record->n; i++) {
        const atedm_load_sample *s = &p->record->samples[i];
        if (is_drawn(p, i) && s->ok && s->warm_up == warm_up)
            fprintf(p->file, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.6\"/>\n",
                    atedm_svg_x(panel, s->due_s), atedm_svg_y(panel, latency(s)));
    }
    fputs("</g>\n", p->file);
}

static void draw_crosses(const plot *p, const atedm_svg_panel *panel)
{
    fputs("<path stroke=\"" FAILED "\" stroke-width=\"1.4\" fill=\"none\" d=\"M0 0", p->file);
    for (size_t i = 0; i < p->record->n; i++) {
        const atedm_load_sample *s = &p->record->samples[i];
        if (is_drawn(p, i) && !s->ok)
            atedm_svg_cross(p->file, atedm_svg_x(panel, s->due_s), atedm_svg_y(panel, latency(s)));
    }
    fputs("\"/>\n", p->file);
}

// Draws the median of each tenth of the run.
static void draw_medians(const plot *p, const atedm_svg_panel *panel)
{
    fputs("<path stroke=\"" CURVE "\" stroke-width=\"2\" fill=\"none\" d=\"M0 0", p->file);
    for (int i = 0; i < ATEDM_LOAD_TENTHS; i++) {
        const atedm_load_tenth *t = &p->stats->tenths[i];
        if (!isnan(t->total.p50))
            fprintf(p->file, "M%.1f %.1fH%.1f", atedm_svg_x(panel, t->from_s),
                    atedm_svg_y(panel, t->total.p50), atedm_svg_x(panel, t->to_s));
    }
    fputs("\"/>\n", p->file);
}

static void draw_latency(const plot *p)
{
    static const atedm_svg_key keys[] = {{DOT, OK, "ok"},
                                         {CROSS, FAILED, "failed"},
                                         {DOT, WARM_UP, "warm-up"},
                                         {LINE, CURVE, "median of each tenth"}};
    atedm_svg_panel panel = {.left = LEFT,
                             .top = 110,
                             .width = INNER,
                             .height = 260,
                             .x_max = p->end_s,
                             .y_max = atedm_svg_ceil(p->slowest_s, 5)};
    char title[64] = "Latency of each request";
    size_t stride = (p->record->n + ATEDM_LOAD_MAX_DOTS - 1) / ATEDM_LOAD_MAX_DOTS;
    if (stride > 1)
        snprintf(title, sizeof title, "Latency, one request of %zu", stride);
    atedm_svg_axes(p->file, &panel, title, "when it was due, s from the start", "latency, s");
    atedm_svg_legend(p->file, &panel, keys, sizeof keys / sizeof *keys);
    draw_dots(p, &panel, true);
    draw_dots(p, &panel, false);
    draw_crosses(p, &panel);
    draw_medians(p, &panel);
}

// ---- requests over time

typedef struct event {
    double at_s;
    int change; // change of the number of requests
} event;

static int compare_events(const void *a, const void *b)
{
    double x = ((const event *)a)->at_s, y = ((const event *)b)->at_s;
    return (x > y) - (x < y);
}

// Collects the events of open requests, or of the daemon's queue. Returns their number.
static size_t collect(const atedm_load_record *record, bool queue, event *events)
{
    size_t n = 0;
    for (size_t i = 0; i < record->n; i++) {
        const atedm_load_sample *s = &record->samples[i];
        if (isnan(s->sent_s) || (queue && !s->detailed))
            continue;
        events[n++] = (event){queue ? s->sent_s : s->due_s, 1};
        events[n++] = (event){queue ? s->sent_s + s->answer.queue_s : s->done_s, -1};
    }
    qsort(events, n, sizeof *events, compare_events);
    return n;
}

// The highest number in each column of the panel.
static double count_columns(const event *events, size_t n, double end_s, double *columns)
{
    double level = 0, highest = 0;
    size_t next = 0;
    for (int c = 0; c < COLUMNS; c++) {
        columns[c] = level;
        for (; next < n && events[next].at_s <= (c + 1) * end_s / COLUMNS; next++) {
            level += events[next].change;
            columns[c] = fmax(columns[c], level);
        }
        highest = fmax(highest, columns[c]);
    }
    return highest;
}

static void draw_columns(const plot *p, const atedm_svg_panel *panel, const double *columns,
                         const char *color)
{
    fprintf(p->file, "<path stroke=\"%s\" stroke-width=\"1.6\" fill=\"none\" d=\"M%.1f %.1f", color,
            panel->left, atedm_svg_y(panel, columns[0]));
    for (int c = 0; c < COLUMNS; c++)
        fprintf(p->file, "V%.1fH%.1f", atedm_svg_y(panel, columns[c]),
                panel->left + (c + 1) * panel->width / COLUMNS);
    fputs("\"/>\n", p->file);
}

// False if memory is exhausted.
static bool draw_open(const plot *p)
{
    static const atedm_svg_key keys[] = {{LINE, OPEN, "due and not answered"},
                                         {LINE, QUEUE, "in the daemon's queue"}};
    event *events = calloc(2 * p->record->n + 1, sizeof *events);
    double open[COLUMNS], queue[COLUMNS];
    if (!events)
        return false;
    double highest = count_columns(events, collect(p->record, false, events), p->end_s, open);
    count_columns(events, collect(p->record, true, events), p->end_s, queue);
    free(events);
    atedm_svg_panel panel = {.left = LEFT,
                             .top = 460,
                             .width = INNER,
                             .height = 160,
                             .x_max = p->end_s,
                             .y_max = fmax(atedm_svg_ceil(highest + 1, 5), 5)};
    atedm_svg_axes(p->file, &panel, "Requests at a time", "s from the start", "requests");
    atedm_svg_legend(p->file, &panel, keys, sizeof keys / sizeof *keys);
    draw_columns(p, &panel, open, OPEN);
    draw_columns(p, &panel, queue, QUEUE);
    return true;
}

// ---- the spread

static void draw_bars(const plot *p, const atedm_svg_panel *panel, const size_t *bins, double most)
{
    double width = panel->width / BINS, full = panel->height * panel->y_last / panel->y_max;
    fputs("<g fill=\"" BAR "\">\n", p->file);
    for (int b = 0; b < BINS; b++) {
        double height = (double)bins[b] / most * full;
        if (bins[b])
            fprintf(p->file, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>\n",
                    panel->left + b * width + 0.5, panel->top + panel->height - height, width - 1,
                    height);
    }
    fputs("</g>\n", p->file);
}

static void draw_curve(const plot *p, const atedm_svg_panel *panel, const double *sorted, size_t n)
{
    size_t stride = n / COLUMNS + 1;
    fprintf(p->file, "<path stroke=\"" CURVE "\" stroke-width=\"2\" fill=\"none\" d=\"M%.1f %.1f",
            panel->left, panel->top + panel->height);
    for (size_t i = 0; i < n; i++)
        if (i % stride == 0 || i == n - 1)
            fprintf(p->file, "H%.1fV%.1f", atedm_svg_x(panel, sorted[i]),
                    atedm_svg_y(panel, 100 * (double)(i + 1) / (double)n));
    fprintf(p->file, "H%.1f\"/>\n", panel->left + panel->width);
}

// Draws a mark for a percentile. `row` keeps the labels of neighbouring marks apart.
static void draw_percentile(const plot *p, const atedm_svg_panel *panel, const char *name,
                            double value, int row)
{
    double x = atedm_svg_x(panel, value);
    bool left = x > panel->left + 0.8 * panel->width;
    fprintf(p->file,
            "<path d=\"M%.1f %.1fV%.1f\" stroke=\"" FAILED
            "\" stroke-width=\"1.4\" stroke-dasharray=\"5 4\"/>\n",
            x, panel->top, panel->top + panel->height);
    atedm_svg_text(p->file, left ? x - 6 : x + 6, panel->top + 14 + row * 16,
                   left ? "text-anchor=\"end\" fill=\"" FAILED "\" " HALO
                        : "fill=\"" FAILED "\" " HALO,
                   "%s %.3g s", name, value);
}

static void draw_spread_of(const plot *p, const double *sorted, size_t n)
{
    static const atedm_svg_key keys[] = {{SQUARE, BAR, "requests of each bar's latency"},
                                         {LINE, CURVE, "share of requests that were no slower"}};
    atedm_svg_panel panel = {.left = LEFT,
                             .top = 710,
                             .width = INNER,
                             .height = 230,
                             .x_max = n ? atedm_svg_ceil(sorted[n - 1], 10) : 1,
                             .y_max = 126, // room for three lines of text above the curve
                             .y_last = 100};
    size_t bins[BINS] = {0}, most = 1;
    for (size_t i = 0; i < n; i++) {
        size_t bin = (size_t)fmin(sorted[i] / panel.x_max * BINS, BINS - 1);
        bins[bin]++;
        most = bins[bin] > most ? bins[bin] : most;
    }
    double top = atedm_svg_ceil(fmax((double)most, 5), 5); // ticks are integers
    atedm_svg_axes(p->file, &panel, "How the latencies are spread", "latency, s", "share, %");
    atedm_svg_right_axis(p->file, &panel, top, "requests");
    atedm_svg_legend(p->file, &panel, keys, sizeof keys / sizeof *keys);
    if (!n) {
        atedm_svg_text(p->file, LEFT + INNER / 2.0, panel.top + panel.height / 2,
                       "text-anchor=\"middle\"", "No request succeeded.");
        return;
    }
    draw_bars(p, &panel, bins, top);
    draw_curve(p, &panel, sorted, n);
    draw_percentile(p, &panel, "p50", p->stats->total.p50, 0);
    draw_percentile(p, &panel, "p95", p->stats->total.p95, 1);
    draw_percentile(p, &panel, "p99", p->stats->total.p99, 2);
}

// False if memory is exhausted.
static bool draw_spread(const plot *p)
{
    double *sorted = calloc(p->record->n + 1, sizeof *sorted);
    size_t n = 0;
    if (!sorted)
        return false;
    for (size_t i = 0; i < p->record->n; i++) {
        const atedm_load_sample *s = &p->record->samples[i];
        if (s->ok && !s->warm_up)
            sorted[n++] = latency(s);
    }
    atedm_cli_sort(sorted, n);
    draw_spread_of(p, sorted, n);
    free(sorted);
    return true;
}

atedm_status atedm_load_plot_write(const char *path, const atedm_load_plan *plan,
                                   const atedm_load_record *record, const atedm_load_stats *stats,
                                   atedm_error *err)
{
    plot p = {.plan = plan, .record = record, .stats = stats, .end_s = record->end_s};
    for (size_t i = 0; i < record->n; i++) {
        const atedm_load_sample *s = &record->samples[i];
        p.end_s = fmax(p.end_s, s->done_s); // fmax ignores NAN
        p.slowest_s = fmax(p.slowest_s, latency(s));
    }
    p.end_s = fmax(p.end_s, 1e-3); // so that axes have a length
    p.slowest_s = fmax(p.slowest_s, 1e-3);
    p.file = fopen(path, "we");
    if (!p.file)
        return atedm_error_set(err, ATEDM_ERR_IO, "%s: %s", path, strerror(errno));
    atedm_svg_begin(p.file, WIDTH, HEIGHT);
    draw_head(&p);
    draw_latency(&p);
    bool drawn = draw_open(&p) && draw_spread(&p);
    atedm_svg_end(p.file);
    bool failed = ferror(p.file) != 0;
    failed |= fclose(p.file) != 0;
    if (failed || !drawn)
        return atedm_error_set(err, drawn ? ATEDM_ERR_IO : ATEDM_ERR_NOMEM,
                               "%s: the picture could not be written", path);
    return ATEDM_OK;
}
