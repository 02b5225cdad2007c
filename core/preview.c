// Fits and applies the map from latents to colours: see preview.h.
#include "core/preview.h"

#include "core/base/splitmix.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// The fit decodes two sets of PICTURES pictures. Each picture has SIDE x SIDE cells and AREAS
// areas.
#define SIDE 12
#define PICTURES 12
#define AREAS 3
#define RECTANGLE_LEAST 4 // shortest side, in cells
#define RECTANGLE_RANGE 5 // number of different lengths of a side
// Latents have about unit variance. Up to LATENT_SMALL every decoder is about linear; no latent of
// a real picture exceeds LATENT_MOST.
#define LATENT_SMALL 0.43
#define LATENT_MOST 4.0
// Many decoded pictures clip colours that are nearer than this to black or white.
#define COLOUR_LEAST 32

#define UNKNOWNS (ATEDM_VAE_MAX_LATENT_CHANNELS + 1)
#define B ATEDM_VAE_MAX_LATENT_CHANNELS // column of the map that holds b

// The normal equations: the sums of z z^T and z rgb^T over all cells, where z is the latent
// followed by a 1 for b.
typedef struct equations {
    int n; // unknowns of each colour
    double left[UNKNOWNS][UNKNOWNS];
    double right[UNKNOWNS][3];
} equations;

// What decoding a picture takes.
typedef struct decoder {
    const atedm_model *model;
    atedm_stream *s;
    atedm_arena arena;
    int64_t scale;   // pixels of a cell's side
    float *latents;  // [host] [SIDE, SIDE, channels]
    uint8_t *pixels; // [host] [SIDE * scale, SIDE * scale, 3]
} decoder;

// ---- pictures to decode

static double uniform(uint64_t key, uint64_t number, double low, double high)
{
    return low + (high - low) * ldexp((double)(atedm_splitmix(key, number) >> 11), -53);
}

// Assigns an area to each cell: 0 is the ground, the others are rectangles on it.
static void place(uint64_t key, uint8_t ret_areas[SIDE * SIDE])
{
    memset(ret_areas, 0, SIDE * SIDE);
    for (uint64_t area = 1; area < AREAS; area++) {
        uint64_t own = atedm_splitmix(key, area);
        int h = RECTANGLE_LEAST + (int)(atedm_splitmix(own, 0) % RECTANGLE_RANGE);
        int w = RECTANGLE_LEAST + (int)(atedm_splitmix(own, 1) % RECTANGLE_RANGE);
        int top = (int)(atedm_splitmix(own, 2) % (uint64_t)(SIDE - h + 1));
        int left = (int)(atedm_splitmix(own, 3) % (uint64_t)(SIDE - w + 1));
        for (int y = top; y < top + h; y++)
            memset(ret_areas + y * SIDE + left, (int)area, (size_t)w);
    }
}

// The shortest latent that the map takes to the colour: W^T (W W^T)^-1 (rgb - b), by Cramer's rule.
// Clamped to what latents of pictures may be. If the map has no such latent the result has some
// other colour, which does no harm, because the fit uses the colour that the decoder makes of it.
static void invert(const atedm_preview *p, const double rgb[3], float *ret_latent)
{
    double m[3][3] = {{0}}, v[3], minor[3][3];
    for (int i = 0; i < 3; i++) {
        v[i] = rgb[i] - p->map[i][B];
        for (int j = 0; j < 3; j++)
            for (int64_t c = 0; c < p->channels; c++)
                m[i][j] += p->map[i][c] * p->map[j][c];
    }
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++)
            minor[i][j] = m[(i + 1) % 3][(j + 1) % 3] * m[(i + 2) % 3][(j + 2) % 3] -
                          m[(i + 1) % 3][(j + 2) % 3] * m[(i + 2) % 3][(j + 1) % 3];
    double determinant = m[0][0] * minor[0][0] + m[0][1] * minor[0][1] + m[0][2] * minor[0][2];
    for (int64_t c = 0; c < p->channels; c++) {
        double z = 0;
        for (int i = 0; i < 3; i++)
            for (int j = 0; j < 3; j++)
                z += p->map[i][c] * minor[j][i] * v[j] / determinant;
        ret_latent[c] = (float)fmin(fmax(z, -LATENT_MOST), LATENT_MOST); // NaN becomes a limit
    }
}

// Draws a picture whose areas have one latent each. Without a map the latents are random; with one
// they are those of random colours.
static void draw(uint64_t key, const atedm_preview *map, int64_t channels, float *ret_latents)
{
    uint8_t areas[SIDE * SIDE];
    float latents[AREAS][ATEDM_VAE_MAX_LATENT_CHANNELS];
    for (uint64_t area = 0; area < AREAS; area++) {
        uint64_t own = atedm_splitmix(key, AREAS + area);
        double rgb[3];
        for (uint64_t k = 0; k < 3; k++)
            rgb[k] = uniform(own, k, COLOUR_LEAST, 255 - COLOUR_LEAST);
        if (map)
            invert(map, rgb, latents[area]);
        for (int64_t c = 0; c < channels && !map; c++)
            latents[area][c] = (float)uniform(own, (uint64_t)c, -LATENT_SMALL, LATENT_SMALL);
    }
    place(key, areas);
    for (size_t cell = 0; cell < SIDE * SIDE; cell++)
        memcpy(ret_latents + cell * (size_t)channels, latents[areas[cell]],
               (size_t)channels * sizeof *ret_latents);
}

// ---- decoding

static size_t pixel_bytes(int64_t scale)
{
    return (size_t)(SIDE * scale * SIDE * scale * 3);
}

// Decodes one picture of [host] latents `from` to [host] pixels `to`. With the dry twin as `model`,
// from and to are NULL, and the arena only measures.
static void decode(const atedm_model *model, atedm_stream *s, atedm_arena *arena, int64_t scale,
                   const float *from, uint8_t *to)
{
    size_t values = pixel_bytes(scale);
    size_t latents = (size_t)(SIDE * SIDE * model->config.parts.vae.latent_channels);
    float *x = atedm_arena_take(arena, s, latents * sizeof *x);
    void *y = atedm_arena_take(arena, s, values * atedm_dtype_size(model->vae_dtype));
    uint8_t *bytes = atedm_arena_take(arena, s, values);
    if (from)
        atedm_upload(s, from, x, latents * sizeof *x);
    atedm_vae_decode(model->vae, s, arena, x, SIDE, SIDE, y);
    if (to) {
        atedm_image_finish(s, y, bytes, (int64_t)values);
        atedm_download(s, bytes, to, values);
    }
    atedm_arena_release(arena, 0);
}

static atedm_status measure(const atedm_model *model, int64_t scale, size_t *ret_bytes,
                            atedm_error *err)
{
    const atedm_model *dry = model->dry;
    atedm_stream *s = NULL;
    atedm_arena arena;
    atedm_status status = atedm_stream_create(dry->device, dry->vae_dtype, &s, err);
    if (status)
        return status;
    atedm_arena_init_measuring(&arena);
    decode(dry, s, &arena, scale, NULL, NULL);
    status = atedm_stream_sync(s, err);
    atedm_stream_destroy(s);
    if (!status)
        *ret_bytes = arena.peak;
    return status;
}

static atedm_status open_decoder(decoder *d, size_t memory, atedm_error *err)
{
    size_t need = 0;
    atedm_status status = measure(d->model, d->scale, &need, err);
    if (status)
        return status;
    if (need > memory)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "previews need %zu bytes of device memory",
                               need);
    d->latents = malloc((size_t)(SIDE * SIDE * d->model->config.parts.vae.latent_channels) *
                        sizeof *d->latents);
    d->pixels = malloc(pixel_bytes(d->scale));
    if (!d->latents || !d->pixels)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for previews");
    status = atedm_stream_create(d->model->device, d->model->vae_dtype, &d->s, err);
    return status ? status : atedm_arena_init(&d->arena, d->model->device, need, err);
}

static void close_decoder(decoder *d)
{
    atedm_arena_finish(&d->arena);
    atedm_stream_destroy(d->s);
    free(d->latents);
    free(d->pixels);
}

// ---- the fit

// The mean colour of a cell's pixels.
static void average(const decoder *d, int64_t row, int64_t column, double ret_rgb[3])
{
    int64_t side = SIDE * d->scale;
    double sum[3] = {0};
    for (int64_t y = row * d->scale; y < (row + 1) * d->scale; y++)
        for (int64_t x = column * d->scale; x < (column + 1) * d->scale; x++)
            for (int k = 0; k < 3; k++)
                sum[k] += d->pixels[(y * side + x) * 3 + k];
    for (int k = 0; k < 3; k++)
        ret_rgb[k] = sum[k] / (double)(d->scale * d->scale);
}

static void add_cell(equations *e, const float *latent, const double rgb[3])
{
    double z[UNKNOWNS];
    for (int i = 0; i < e->n - 1; i++)
        z[i] = latent[i];
    z[e->n - 1] = 1;
    for (int i = 0; i < e->n; i++) {
        for (int j = 0; j < e->n; j++)
            e->left[i][j] += z[i] * z[j];
        for (int k = 0; k < 3; k++)
            e->right[i][k] += z[i] * rgb[k];
    }
}

static void add_picture(equations *e, const decoder *d)
{
    for (int64_t y = 0; y < SIDE; y++)
        for (int64_t x = 0; x < SIDE; x++) {
            double rgb[3];
            average(d, y, x, rgb);
            add_cell(e, d->latents + (y * SIDE + x) * (e->n - 1), rgb);
        }
}

// Gauss-Jordan elimination. The first pictures' latents are drawn independently, so the matrix is
// positive definite, and no rows need to be exchanged.
static atedm_preview solve(const equations *sums)
{
    equations e = *sums;
    for (int i = 0; i < e.n; i++)
        for (int row = 0; row < e.n; row++) {
            if (row == i)
                continue;
            double factor = e.left[row][i] / e.left[i][i];
            for (int j = i; j < e.n; j++)
                e.left[row][j] -= factor * e.left[i][j];
            for (int k = 0; k < 3; k++)
                e.right[row][k] -= factor * e.right[i][k];
        }
    atedm_preview p = {.channels = e.n - 1};
    for (int i = 0; i < e.n; i++)
        for (int k = 0; k < 3; k++)
            p.map[k][i == e.n - 1 ? B : i] = e.right[i][k] / e.left[i][i];
    return p;
}

// Decodes the pictures and adds them to the equations. map: NULL for the first PICTURES, else the
// map fitted to those.
static atedm_status add_pictures(decoder *d, equations *e, const atedm_preview *map,
                                 atedm_error *err)
{
    for (uint64_t picture = 0; picture < PICTURES; picture++) {
        draw(atedm_splitmix(map != NULL, picture), map, e->n - 1, d->latents);
        decode(d->model, d->s, &d->arena, d->scale, d->latents, d->pixels);
        atedm_status status = atedm_stream_sync(d->s, err);
        if (status)
            return status;
        add_picture(e, d);
    }
    return ATEDM_OK;
}

atedm_status atedm_preview_fit(const atedm_model *model, size_t memory, atedm_preview *ret_preview,
                               atedm_error *err)
{
    int64_t channels = model->config.parts.vae.latent_channels;
    if (channels > ATEDM_VAE_MAX_LATENT_CHANNELS)
        return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED,
                               "no previews: latents have %lld channels, more than %d",
                               (long long)channels, ATEDM_VAE_MAX_LATENT_CHANNELS);
    decoder d = {.model = model, .scale = atedm_model_config_scale(&model->config)};
    equations e = {.n = (int)channels + 1};
    atedm_status status = open_decoder(&d, memory, err);
    if (!status)
        status = add_pictures(&d, &e, NULL, err);
    if (!status) {
        const atedm_preview rough = solve(&e);
        status = add_pictures(&d, &e, &rough, err);
    }
    close_decoder(&d);
    if (status)
        return status;
    *ret_preview = solve(&e);
    return ATEDM_OK;
}

// ---- drawing

atedm_preview_grid atedm_preview_grid_of(int64_t h, int64_t w)
{
    atedm_preview_grid grid = {1, h, w};
    while (grid.h * grid.w > ATEDM_PREVIEW_MAX_PIXELS) {
        grid.stride++;
        grid.h = (h + grid.stride - 1) / grid.stride;
        grid.w = (w + grid.stride - 1) / grid.stride;
    }
    return grid;
}

static void render_pixel(const atedm_preview *p, const float *latent, uint8_t ret_rgb[3])
{
    for (int k = 0; k < 3; k++) {
        double value = p->map[k][B];
        for (int64_t c = 0; c < p->channels; c++)
            value += p->map[k][c] * latent[c];
        // fmax returns its other argument if `value` is NaN
        ret_rgb[k] = (uint8_t)lrint(fmin(fmax(value, 0), 255));
    }
}

void atedm_preview_render(const atedm_preview *p, const float *latents, int64_t h, int64_t w,
                          uint8_t *ret_rgb)
{
    int64_t stride = atedm_preview_grid_of(h, w).stride;
    for (int64_t y = 0; y < h; y += stride)
        for (int64_t x = 0; x < w; x += stride, ret_rgb += 3)
            render_pixel(p, latents + (y * w + x) * p->channels, ret_rgb);
}
