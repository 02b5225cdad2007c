// Reads parameters from the safetensors files of a model's component: see weights.h.
#include "core/weights.h"

#include "core/base/memory.h"
#include "core/json_read.h"
#include "core/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define UNUSED_NAMED 5 // how many unused parameters an error message names

typedef struct parameter {
    const char *name;                // without the prefix; owned by the file
    const atedm_host_tensor *tensor; // owned by the file
    bool used;
} parameter;

// A copy of a tensor's data, because the file has it unaligned for its dtype, or transposed.
typedef struct copy {
    struct copy *next;
    void *data;
} copy;

typedef struct shard {
    char *name; // file name
    atedm_safetensors *file;
} shard;

typedef struct file_weights {
    atedm_weights base;      // first: a file_weights is an atedm_weights
    char *dir;               // the component's folder; with a renaming, the path of the file
    atedm_renaming renaming; // without a renaming: prefix "", find NULL
    shard *shards;
    size_t n_shards;
    parameter *parameters; // sorted by name
    size_t n_parameters;
    size_t bytes;
    copy *copies;
} file_weights;

static int by_name(const void *a, const void *b)
{
    return strcmp(((const parameter *)a)->name, ((const parameter *)b)->name);
}

static parameter *find(const file_weights *w, const char *name)
{
    parameter key = {.name = name};
    return bsearch(&key, w->parameters, w->n_parameters, sizeof key, by_name);
}

static bool is_aligned(const atedm_host_tensor *tensor)
{
    return (uintptr_t)tensor->data % atedm_dtype_size(tensor->dtype) == 0;
}

// Transposes `from`, [rows, columns], to `to`, [columns, rows]. element: bytes of an element.
static void transpose(const unsigned char *from, size_t rows, size_t columns, size_t element,
                      unsigned char *to)
{
    for (size_t c = 0; c < columns; c++)
        for (size_t r = 0; r < rows; r++)
            memcpy(to + (c * rows + r) * element, from + (r * columns + c) * element, element);
}

// Replaces the tensor's data by a copy. `transposed`: by the transpose of the data in the file.
static atedm_status make_copy(file_weights *w, const char *name, bool transposed,
                              atedm_host_tensor *tensor, atedm_error *err)
{
    size_t bytes = (size_t)atedm_host_tensor_count(tensor) * atedm_dtype_size(tensor->dtype);
    copy *c = malloc(sizeof *c);
    void *data = malloc(bytes ? bytes : 1);
    if (!c || !data) {
        free(c);
        free(data);
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "%s: \"%.100s\": no memory for %zu bytes",
                               w->dir, name, bytes);
    }
    if (transposed)
        transpose(tensor->data, (size_t)tensor->shape[1], (size_t)tensor->shape[0],
                  atedm_dtype_size(tensor->dtype), data);
    else
        memcpy(data, tensor->data, bytes);
    *c = (copy){.next = w->copies, .data = data};
    w->copies = c;
    tensor->data = data;
    return ATEDM_OK;
}

static bool is_third(atedm_stored_form form)
{
    return form >= ATEDM_STORED_FIRST_THIRD && form <= ATEDM_STORED_LAST_THIRD;
}

// The shape that the file must have for a parameter of shape `shape` that it stores in this form.
static atedm_host_tensor shape_in_file(atedm_stored_form form, const atedm_host_tensor *stored,
                                       int ndim, const int64_t *shape)
{
    atedm_host_tensor t = {.ndim = ndim};
    memcpy(t.shape, shape, (size_t)ndim * sizeof *shape);
    if (form == ATEDM_STORED_POINTWISE && ndim == 2 && stored->ndim == 4) {
        t.ndim = 4;
        t.shape[2] = t.shape[3] = 1;
    } else if (form == ATEDM_STORED_TRANSPOSED && ndim == 2) {
        t.shape[0] = shape[1];
        t.shape[1] = shape[0];
    } else if (is_third(form)) {
        t.shape[0] *= 3;
    }
    return t;
}

static atedm_status check(const file_weights *w, const char *name, atedm_stored_form form, int ndim,
                          const int64_t *shape, const atedm_host_tensor *stored, atedm_error *err)
{
    const atedm_host_tensor wanted = shape_in_file(form, stored, ndim, shape);
    const char *prefix = w->renaming.prefix;
    if (!atedm_host_tensor_has_shape(stored, wanted.ndim, wanted.shape)) {
        char has[96], text[96];
        atedm_shape_text(stored->ndim, stored->shape, has, sizeof has);
        atedm_shape_text(wanted.ndim, wanted.shape, text, sizeof text);
        return atedm_error_set(err, ATEDM_ERR_FORMAT,
                               "%s: parameter \"%s%.100s\" has shape %s, the config implies %s",
                               w->dir, prefix, name, has, text);
    }
    if (stored->dtype != ATEDM_F32 && stored->dtype != ATEDM_F16 && stored->dtype != ATEDM_BF16)
        return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED,
                               "%s: parameter \"%s%.100s\" has dtype %s, not f32, f16 or bf16",
                               w->dir, prefix, name, atedm_dtype_name(stored->dtype));
    return ATEDM_OK;
}

static atedm_status file_get(atedm_weights *weights, const char *name, int ndim,
                             const int64_t *shape, bool optional, atedm_host_tensor *ret_tensor,
                             atedm_error *err)
{
    file_weights *w = (file_weights *)weights;
    atedm_stored stored = {.form = ATEDM_STORED_AS_ASKED};
    if (w->renaming.find) {
        w->renaming.find(w->renaming.user, name, &stored);
        name = stored.name;
    }
    parameter *p = find(w, name);
    if (!p && optional) {
        *ret_tensor = (atedm_host_tensor){.ndim = -1};
        return ATEDM_OK;
    }
    if (!p)
        return atedm_error_set(err, ATEDM_ERR_FORMAT, "%s: parameter \"%s%.100s\" is missing",
                               w->dir, w->renaming.prefix, name);
    atedm_status status = check(w, name, stored.form, ndim, shape, p->tensor, err);
    if (status)
        return status;
    atedm_host_tensor tensor = {.data = p->tensor->data, .dtype = p->tensor->dtype, .ndim = ndim};
    memcpy(tensor.shape, shape, (size_t)ndim * sizeof *shape);
    if (is_third(stored.form))
        tensor.data = (const unsigned char *)tensor.data +
                      (size_t)(stored.form - ATEDM_STORED_FIRST_THIRD) *
                          (size_t)atedm_host_tensor_count(&tensor) * atedm_dtype_size(tensor.dtype);
    bool transposed = stored.form == ATEDM_STORED_TRANSPOSED;
    if (transposed || !is_aligned(&tensor))
        status = make_copy(w, name, transposed, &tensor, err);
    if (status)
        return status;
    p->used = true;
    *ret_tensor = tensor;
    return ATEDM_OK;
}

static void file_done(atedm_weights *weights, const atedm_host_tensor *tensor)
{
    file_weights *w = (file_weights *)weights;
    for (copy **at = &w->copies; *at; at = &(*at)->next) {
        copy *c = *at;
        if (c->data == tensor->data) {
            *at = c->next;
            free(c->data);
            free(c);
            return;
        }
    }
    for (size_t i = 0; i < w->n_shards; i++)
        atedm_safetensors_drop(w->shards[i].file, tensor);
}

static char *join(const char *dir, const char *name)
{
    char *path = NULL;
    return asprintf(&path, "%s/%s", dir, name) < 0 ? NULL : path;
}

static atedm_status no_memory(const file_weights *w, atedm_error *err)
{
    return atedm_error_set(err, ATEDM_ERR_NOMEM, "%s: no memory", w->dir);
}

// Opens the file as another shard. NULL on failure; *ret_status then tells why.
static const shard *open_file(file_weights *w, const char *path, const char *name,
                              atedm_status *ret_status, atedm_error *err)
{
    shard *shards = realloc(w->shards, (w->n_shards + 1) * sizeof *shards);
    if (shards)
        w->shards = shards;
    char *own_name = strdup(name);
    atedm_safetensors *file = NULL;
    if (shards && own_name)
        *ret_status = atedm_safetensors_open(path, &file, err);
    else
        *ret_status = no_memory(w, err);
    if (!file) {
        free(own_name);
        return NULL;
    }
    shards[w->n_shards] = (shard){.name = own_name, .file = file};
    return &shards[w->n_shards++];
}

// The same for file `name` of the folder.
static const shard *open_shard(file_weights *w, const char *name, atedm_status *ret_status,
                               atedm_error *err)
{
    char *path = join(w->dir, name);
    const shard *opened = NULL;
    if (path)
        opened = open_file(w, path, name, ret_status, err);
    else
        *ret_status = no_memory(w, err);
    free(path);
    return opened;
}

// Lists the parameters of all shards. With a renaming, only those with its prefix.
static atedm_status collect(file_weights *w, atedm_error *err)
{
    const char *prefix = w->renaming.prefix;
    size_t count = 0;
    for (size_t i = 0; i < w->n_shards; i++)
        count += atedm_safetensors_count(w->shards[i].file);
    w->parameters = calloc(count + 1, sizeof *w->parameters);
    if (!w->parameters)
        return no_memory(w, err);
    for (size_t i = 0; i < w->n_shards; i++) {
        const atedm_safetensors *file = w->shards[i].file;
        for (size_t k = 0; k < atedm_safetensors_count(file); k++) {
            const atedm_host_tensor *t = atedm_safetensors_tensor(file, k);
            const char *name = atedm_safetensors_name(file, k);
            if (strncmp(name, prefix, strlen(prefix)) != 0)
                continue;
            w->parameters[w->n_parameters++] =
                (parameter){.name = name + strlen(prefix), .tensor = t};
            w->bytes += (size_t)atedm_host_tensor_count(t) * atedm_dtype_size(t->dtype);
        }
    }
    qsort(w->parameters, w->n_parameters, sizeof *w->parameters, by_name);
    for (size_t i = 1; i < w->n_parameters; i++)
        if (strcmp(w->parameters[i - 1].name, w->parameters[i].name) == 0)
            return atedm_error_set(err, ATEDM_ERR_FORMAT,
                                   "%s: parameter \"%.100s\" is in more than one shard", w->dir,
                                   w->parameters[i].name);
    return ATEDM_OK;
}

// Whether the name is that of a .safetensors file in the index's own folder. Others are refused, so
// that an index cannot lead to files elsewhere.
static bool is_shard_name(const char *name)
{
    static const char suffix[] = ".safetensors";
    size_t length = strlen(name);
    return length > sizeof suffix - 1 && length <= 255 && name[0] != '.' && !strchr(name, '/') &&
           strcmp(name + length - (sizeof suffix - 1), suffix) == 0;
}

static const shard *find_shard(const file_weights *w, const char *name)
{
    for (size_t i = 0; i < w->n_shards; i++)
        if (strcmp(w->shards[i].name, name) == 0)
            return &w->shards[i];
    return NULL;
}

static atedm_status open_index_entry(file_weights *w, const char *index, const char *parameter_name,
                                     const json_t *value, atedm_error *err)
{
    const char *name = json_string_value(value);
    if (!name || !is_shard_name(name))
        return atedm_error_set(err, ATEDM_ERR_FORMAT,
                               "%s/%s: \"%.100s\": \"%.60s\" is not the name of a .safetensors "
                               "file beside the index",
                               w->dir, index, parameter_name, name ? name : "(no string)");
    const shard *s = find_shard(w, name);
    if (!s) {
        if (w->n_shards == ATEDM_WEIGHTS_MAX_SHARDS)
            return atedm_error_set(err, ATEDM_ERR_LIMIT, "%s/%s: more shards than the limit of %d",
                                   w->dir, index, ATEDM_WEIGHTS_MAX_SHARDS);
        atedm_status status = ATEDM_OK;
        s = open_shard(w, name, &status, err);
        if (!s)
            return status;
    }
    if (!atedm_safetensors_find(s->file, parameter_name))
        return atedm_error_set(err, ATEDM_ERR_FORMAT,
                               "%s/%s: parameter \"%.100s\" is not in %.100s", w->dir, index,
                               parameter_name, name);
    return ATEDM_OK;
}

// {"metadata": ..., "weight_map": {parameter: file}}
static atedm_status open_index(file_weights *w, const char *index, atedm_error *err)
{
    json_t *object = NULL;
    char *path = join(w->dir, index);
    atedm_status status = path ? atedm_json_load(path, &object, err) : no_memory(w, err);
    free(path);
    if (status)
        return status;
    json_t *map = json_object_get(object, "weight_map");
    if (!json_is_object(map)) {
        status =
            atedm_error_set(err, ATEDM_ERR_FORMAT,
                            "%s/%s: \"weight_map\" is missing or not an object", w->dir, index);
        goto end;
    }
    const char *name;
    json_t *value;
    json_object_foreach(map, name, value)
    {
        status = open_index_entry(w, index, name, value, err);
        if (status)
            goto end;
    }
    status = collect(w, err);
    if (status)
        goto end;
    for (size_t i = 0; i < w->n_parameters; i++) {
        if (!json_object_get(map, w->parameters[i].name)) {
            status = atedm_error_set(err, ATEDM_ERR_FORMAT,
                                     "%s/%s: parameter \"%.100s\" of a shard is not in the index",
                                     w->dir, index, w->parameters[i].name);
            goto end;
        }
    }
end:
    json_decref(object);
    return status;
}

static atedm_status open_files(file_weights *w, const char *base_name, atedm_error *err)
{
    static const struct {
        const char *suffix;
        bool index;
    } candidates[] = {
        {".safetensors", false},
        {".safetensors.index.json", true},
        {".fp16.safetensors", false},
        {".safetensors.index.fp16.json", true},
        {".safetensors.fp16.index.json", true},
    };
    for (size_t i = 0; i < sizeof candidates / sizeof candidates[0]; i++) {
        char name[256];
        snprintf(name, sizeof name, "%s%s", base_name, candidates[i].suffix);
        char *path = join(w->dir, name);
        if (!path)
            return no_memory(w, err);
        bool exists = access(path, F_OK) == 0;
        free(path);
        if (!exists)
            continue;
        if (candidates[i].index)
            return open_index(w, name, err);
        atedm_status status = ATEDM_OK;
        return open_shard(w, name, &status, err) ? collect(w, err) : status;
    }
    return atedm_error_set(err, ATEDM_ERR_NOT_FOUND,
                           "%s: no %s.safetensors, nor its .fp16 variant, nor a sharded index",
                           w->dir, base_name);
}

// NULL: out of memory.
static file_weights *create(const char *path, atedm_renaming renaming)
{
    file_weights *w = calloc(1, sizeof *w);
    char *dir = strdup(path);
    if (!w || !dir) {
        free(w);
        free(dir);
        return NULL;
    }
    w->base = (atedm_weights){.get = file_get, .done = file_done};
    w->dir = dir;
    w->renaming = renaming;
    return w;
}

// Returns the weights to the caller, or closes them if `status` is an error.
static atedm_status hand_over(file_weights *w, atedm_status status, atedm_weights **ret_weights)
{
    if (status)
        atedm_weights_close(&w->base);
    else
        *ret_weights = &w->base;
    return status;
}

atedm_status atedm_weights_open(const char *component_dir, const char *base_name,
                                atedm_weights **ret_weights, atedm_error *err)
{
    file_weights *w = create(component_dir, (atedm_renaming){.prefix = ""});
    if (!w)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "%s: no memory", component_dir);
    return hand_over(w, open_files(w, base_name, err), ret_weights);
}

atedm_status atedm_weights_open_renamed(const char *path, atedm_renaming renaming,
                                        atedm_weights **ret_weights, atedm_error *err)
{
    file_weights *w = create(path, renaming);
    if (!w)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "%s: no memory", path);
    atedm_status status = ATEDM_OK;
    if (open_file(w, path, path, &status, err))
        status = collect(w, err);
    return hand_over(w, status, ret_weights);
}

size_t atedm_weights_count(const atedm_weights *weights)
{
    return ((const file_weights *)weights)->n_parameters;
}

static bool has_prefix(const char *name, const char *const *prefixes)
{
    for (; prefixes && *prefixes; prefixes++)
        if (strncmp(name, *prefixes, strlen(*prefixes)) == 0)
            return true;
    return false;
}

atedm_status atedm_weights_check_all_used(atedm_weights *weights,
                                          const char *const *ignore_prefixes, atedm_error *err)
{
    const file_weights *w = (const file_weights *)weights;
    atedm_buffer names;
    atedm_buffer_init(&names, ATEDM_ERROR_MAX);
    size_t unused = 0;
    for (size_t i = 0; i < w->n_parameters; i++) {
        const parameter *p = &w->parameters[i];
        if (p->used || has_prefix(p->name, ignore_prefixes))
            continue;
        // A name that does not fit into the buffer is left out of the message.
        if (unused++ < UNUSED_NAMED &&
            atedm_buffer_printf(&names, "%s\"%.60s\"", names.size ? ", " : "", p->name) != ATEDM_OK)
            continue;
    }
    atedm_status status = ATEDM_OK;
    if (unused)
        status = atedm_error_set(
            err, ATEDM_ERR_FORMAT, "%s: %zu parameters that this architecture does not have: %s%s",
            w->dir, unused, names.data ? names.data : "", unused > UNUSED_NAMED ? ", ..." : "");
    atedm_buffer_finish(&names);
    return status;
}

size_t atedm_weights_bytes(const atedm_weights *weights)
{
    return ((const file_weights *)weights)->bytes;
}

atedm_dtype atedm_weights_dtype(const atedm_weights *weights)
{
    const file_weights *w = (const file_weights *)weights;
    return w->n_parameters ? w->parameters[0].tensor->dtype : ATEDM_F32;
}

void atedm_weights_close(atedm_weights *weights)
{
    file_weights *w = (file_weights *)weights;
    if (!w)
        return;
    while (w->copies) {
        copy *next = w->copies->next;
        free(w->copies->data);
        free(w->copies);
        w->copies = next;
    }
    for (size_t i = 0; i < w->n_shards; i++) {
        free(w->shards[i].name);
        atedm_safetensors_close(w->shards[i].file);
    }
    free(w->shards);
    free(w->parameters);
    free(w->dir);
    free(w);
}
