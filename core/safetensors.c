// Reads safetensors files: see safetensors.h. Parses the header once, into a table sorted by place
// in the data; tensors point into the mapping. If another program shortens a mapped file, an access
// to the lost part raises SIGBUS: model files must not be edited in place.
#include "core/safetensors.h"

#include "core/base/file.h"
#include "core/base/memory.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LENGTH_BYTES 8 // of the header's length, little-endian
#define METADATA_KEY "__metadata__"

typedef struct entry {
    char *name;
    size_t begin, end; // range of bytes in the data section
    atedm_host_tensor tensor;
} entry;

struct atedm_safetensors {
    char *path;
    unsigned char *map;
    size_t map_size;
    entry *entries; // sorted by place in the data
    size_t count;
    size_t *by_name; // indexes into entries, sorted by name
};

// What every parsing step uses.
typedef struct parser {
    const char *path;
    const unsigned char *data; // the data section
    size_t data_size;
    atedm_error *err;
} parser;

// Maps the file. Sets file->map and file->map_size only on success.
static atedm_status map_file(atedm_safetensors *file, atedm_error *err)
{
    const char *path = file->path;
    int fd = -1;
    size_t size = 0;
    atedm_status status = atedm_file_open(path, &fd, &size, err);
    if (status)
        return status;
    void *map = MAP_FAILED;
    if (size < LENGTH_BYTES)
        status =
            atedm_error_set(err, ATEDM_ERR_FORMAT,
                            "%s: %zu bytes are too few for the 8-byte header length", path, size);
    else if ((map = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0)) == MAP_FAILED)
        status = atedm_error_set(err, ATEDM_ERR_IO, "%s: cannot map: %s", path, strerror(errno));
    close(fd);
    if (status)
        return status;
    file->map = map;
    file->map_size = size;
    return ATEDM_OK;
}

static bool dtype_from_name(const char *name, atedm_dtype *ret_dtype)
{
    static const struct {
        const char *name;
        atedm_dtype dtype;
    } known[] = {{"F32", ATEDM_F32}, {"BF16", ATEDM_BF16}, {"F16", ATEDM_F16},
                 {"I64", ATEDM_I64}, {"I32", ATEDM_I32},   {"U8", ATEDM_U8}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(name, known[i].name) == 0) {
            *ret_dtype = known[i].dtype;
            return true;
        }
    }
    return false;
}

// Messages quote at most 100 bytes of a name, because a name can be as long as a whole message.
static atedm_status tensor_error(const parser *p, atedm_status status, const char *name,
                                 const char *what)
{
    return atedm_error_set(p->err, status, "%s: tensor \"%.100s\": %s", p->path, name, what);
}

static atedm_status parse_dtype(const parser *p, const char *name, const json_t *item,
                                atedm_dtype *ret_dtype)
{
    if (!json_is_string(item))
        return tensor_error(p, ATEDM_ERR_FORMAT, name, "\"dtype\" is missing or not a string");
    if (!dtype_from_name(json_string_value(item), ret_dtype))
        return atedm_error_set(p->err, ATEDM_ERR_UNSUPPORTED,
                               "%s: tensor \"%.100s\": dtype \"%.20s\" is not one of F32, F16, "
                               "BF16, I64, I32, U8",
                               p->path, name, json_string_value(item));
    return ATEDM_OK;
}

// Reads the shape; *ret_bytes gets the number of bytes of a tensor of this shape.
static atedm_status parse_shape(const parser *p, const char *name, const json_t *item,
                                atedm_host_tensor *tensor, size_t *ret_bytes)
{
    if (!json_is_array(item))
        return tensor_error(p, ATEDM_ERR_FORMAT, name, "\"shape\" is missing or not an array");
    if (json_array_size(item) > ATEDM_MAX_DIMS)
        return atedm_error_set(p->err, ATEDM_ERR_UNSUPPORTED,
                               "%s: tensor \"%.100s\": %zu dimensions, more than the limit of %d",
                               p->path, name, json_array_size(item), ATEDM_MAX_DIMS);
    size_t bytes = atedm_dtype_size(tensor->dtype);
    bool empty = false;
    tensor->ndim = (int)json_array_size(item);
    for (int i = 0; i < tensor->ndim; i++) {
        const json_t *dim = json_array_get(item, (size_t)i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return atedm_error_set(p->err, ATEDM_ERR_FORMAT,
                                   "%s: tensor \"%.100s\": dimension %d of \"shape\" is not a "
                                   "non-negative integer",
                                   p->path, name, i);
        tensor->shape[i] = json_integer_value(dim);
        if (tensor->shape[i] == 0)
            empty = true;
        // An overflow is refused even if another dimension is 0, so that no product can overflow.
        else if (atedm_mul_overflows(bytes, (size_t)tensor->shape[i], &bytes) || bytes > INT64_MAX)
            return tensor_error(p, ATEDM_ERR_FORMAT, name, "the product of \"shape\" overflows");
    }
    *ret_bytes = empty ? 0 : bytes;
    return ATEDM_OK;
}

static atedm_status parse_offsets(const parser *p, const char *name, const json_t *item,
                                  size_t bytes, entry *e)
{
    if (!json_is_array(item) || json_array_size(item) != 2 ||
        !json_is_integer(json_array_get(item, 0)) || !json_is_integer(json_array_get(item, 1)))
        return tensor_error(p, ATEDM_ERR_FORMAT, name,
                            "\"data_offsets\" is missing or not an array of two integers");
    json_int_t begin = json_integer_value(json_array_get(item, 0));
    json_int_t end = json_integer_value(json_array_get(item, 1));
    if (begin < 0 || end < begin)
        return atedm_error_set(p->err, ATEDM_ERR_FORMAT,
                               "%s: tensor \"%.100s\": \"data_offsets\" [%lld, %lld] are not an "
                               "ascending range",
                               p->path, name, (long long)begin, (long long)end);
    if ((uint64_t)end > p->data_size)
        return atedm_error_set(p->err, ATEDM_ERR_FORMAT,
                               "%s: tensor \"%.100s\": \"data_offsets\" end at %lld, the data has "
                               "%zu bytes",
                               p->path, name, (long long)end, p->data_size);
    if ((size_t)(end - begin) != bytes)
        return atedm_error_set(p->err, ATEDM_ERR_FORMAT,
                               "%s: tensor \"%.100s\": \"data_offsets\" span %lld bytes, dtype and "
                               "shape need %zu",
                               p->path, name, (long long)(end - begin), bytes);
    e->begin = (size_t)begin;
    e->end = (size_t)end;
    e->tensor.data = p->data + begin;
    return ATEDM_OK;
}

static atedm_status parse_entry(const parser *p, const char *name, const json_t *value, entry *e)
{
    if (strlen(name) > ATEDM_SAFETENSORS_MAX_NAME)
        return atedm_error_set(p->err, ATEDM_ERR_LIMIT,
                               "%s: tensor \"%.100s...\": name of %zu bytes, more than the limit "
                               "of %d",
                               p->path, name, strlen(name), ATEDM_SAFETENSORS_MAX_NAME);
    if (!json_is_object(value))
        return tensor_error(p, ATEDM_ERR_FORMAT, name, "not described by an object");
    if (json_object_size(value) > 3)
        return tensor_error(p, ATEDM_ERR_FORMAT, name,
                            "fields other than \"dtype\", \"shape\" and \"data_offsets\"");
    size_t bytes = 0;
    atedm_status status = parse_dtype(p, name, json_object_get(value, "dtype"), &e->tensor.dtype);
    if (!status)
        status = parse_shape(p, name, json_object_get(value, "shape"), &e->tensor, &bytes);
    if (!status)
        status = parse_offsets(p, name, json_object_get(value, "data_offsets"), bytes, e);
    if (status)
        return status;
    e->name = strdup(name);
    return e->name ? ATEDM_OK : tensor_error(p, ATEDM_ERR_NOMEM, name, "no memory");
}

static atedm_status check_metadata(const parser *p, const json_t *value)
{
    if (!json_is_object(value))
        return atedm_error_set(p->err, ATEDM_ERR_FORMAT,
                               "%s: \"" METADATA_KEY "\" is not an object", p->path);
    for (void *it = json_object_iter((json_t *)value); it;
         it = json_object_iter_next((json_t *)value, it))
        if (!json_is_string(json_object_iter_value(it)))
            return atedm_error_set(p->err, ATEDM_ERR_FORMAT,
                                   "%s: \"" METADATA_KEY "\": \"%.100s\" is not a string", p->path,
                                   json_object_iter_key(it));
    return ATEDM_OK;
}

static int by_place(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end) // an empty tensor comes before the one that begins at the same place
        return x->end < y->end ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b, void *entries)
{
    const entry *e = entries;
    return strcmp(e[*(const size_t *)a].name, e[*(const size_t *)b].name);
}

// Checks that the tensors' byte ranges cover the data section without gap or overlap.
static atedm_status check_tiling(const parser *p, const entry *entries, size_t count)
{
    size_t place = 0;
    for (size_t i = 0; i < count; i++) {
        if (entries[i].begin < place)
            return atedm_error_set(p->err, ATEDM_ERR_FORMAT,
                                   "%s: tensor \"%.100s\" begins at %zu, inside \"%.100s\"",
                                   p->path, entries[i].name, entries[i].begin, entries[i - 1].name);
        if (entries[i].begin > place)
            return atedm_error_set(p->err, ATEDM_ERR_FORMAT,
                                   "%s: bytes %zu..%zu of the data, before tensor \"%.100s\", "
                                   "belong to no tensor",
                                   p->path, place, entries[i].begin, entries[i].name);
        place = entries[i].end;
    }
    if (place != p->data_size)
        return atedm_error_set(p->err, ATEDM_ERR_FORMAT,
                               "%s: bytes %zu..%zu at the end of the data belong to no tensor",
                               p->path, place, p->data_size);
    return ATEDM_OK;
}

// Fills file->entries from the parsed header.
static atedm_status parse_entries(const parser *p, json_t *header, atedm_safetensors *file)
{
    size_t members = json_object_size(header);
    if (members > ATEDM_SAFETENSORS_MAX_TENSORS)
        return atedm_error_set(p->err, ATEDM_ERR_LIMIT,
                               "%s: %zu tensors, more than the limit of %d", p->path, members,
                               ATEDM_SAFETENSORS_MAX_TENSORS);
    file->entries = calloc(members + 1, sizeof *file->entries);
    file->by_name = calloc(members + 1, sizeof *file->by_name);
    if (!file->entries || !file->by_name)
        return atedm_error_set(p->err, ATEDM_ERR_NOMEM, "%s: no memory for %zu tensors", p->path,
                               members);
    for (void *it = json_object_iter(header); it; it = json_object_iter_next(header, it)) {
        const char *name = json_object_iter_key(it);
        const json_t *value = json_object_iter_value(it);
        atedm_status status;
        if (strcmp(name, METADATA_KEY) == 0) {
            status = check_metadata(p, value);
        } else {
            status = parse_entry(p, name, value, &file->entries[file->count]);
            if (!status)
                file->count++;
        }
        if (status)
            return status;
    }
    qsort(file->entries, file->count, sizeof *file->entries, by_place);
    for (size_t i = 0; i < file->count; i++)
        file->by_name[i] = i;
    qsort_r(file->by_name, file->count, sizeof *file->by_name, by_name, file->entries);
    return check_tiling(p, file->entries, file->count);
}

static atedm_status parse_file(atedm_safetensors *file, atedm_error *err)
{
    uint64_t length = 0;
    for (int i = 0; i < LENGTH_BYTES; i++)
        length |= (uint64_t)file->map[i] << (8 * i);
    size_t rest = file->map_size - LENGTH_BYTES;
    if (length > rest)
        return atedm_error_set(err, ATEDM_ERR_FORMAT,
                               "%s: the header length says %llu bytes, the file has %zu after it",
                               file->path, (unsigned long long)length, rest);
    if (length > ATEDM_SAFETENSORS_MAX_HEADER)
        return atedm_error_set(err, ATEDM_ERR_LIMIT,
                               "%s: header of %llu bytes, more than the limit of %u", file->path,
                               (unsigned long long)length, ATEDM_SAFETENSORS_MAX_HEADER);
    const char *text = (const char *)file->map + LENGTH_BYTES;
    if (length == 0 || text[0] != '{')
        return atedm_error_set(err, ATEDM_ERR_FORMAT, "%s: the header does not begin with \"{\"",
                               file->path);
    json_error_t json_err;
    json_t *header = json_loadb(text, (size_t)length, JSON_REJECT_DUPLICATES, &json_err);
    if (!header)
        return atedm_error_set(err, ATEDM_ERR_FORMAT, "%s: header, byte %d: %s", file->path,
                               json_err.position, json_err.text);
    parser p = {file->path, file->map + LENGTH_BYTES + length, rest - (size_t)length, err};
    atedm_status status = parse_entries(&p, header, file);
    json_decref(header);
    return status;
}

atedm_status atedm_safetensors_open(const char *path, atedm_safetensors **ret_file,
                                    atedm_error *err)
{
    atedm_safetensors *file = calloc(1, sizeof *file);
    if (!file)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "%s: no memory", path);
    atedm_status status;
    file->path = strdup(path);
    if (!file->path) {
        status = atedm_error_set(err, ATEDM_ERR_NOMEM, "%s: no memory", path);
        goto fail;
    }
    status = map_file(file, err);
    if (!file->map)
        goto fail;
    status = parse_file(file, err);
    if (status)
        goto fail;
    *ret_file = file;
    return ATEDM_OK;
fail:
    atedm_safetensors_close(file);
    return status;
}

void atedm_safetensors_close(atedm_safetensors *file)
{
    if (!file)
        return;
    for (size_t i = 0; i < file->count; i++)
        free(file->entries[i].name);
    free(file->entries);
    free(file->by_name);
    if (file->map)
        munmap(file->map, file->map_size);
    free(file->path);
    free(file);
}

size_t atedm_safetensors_count(const atedm_safetensors *file)
{
    return file->count;
}

const char *atedm_safetensors_name(const atedm_safetensors *file, size_t i)
{
    return file->entries[i].name;
}

const atedm_host_tensor *atedm_safetensors_tensor(const atedm_safetensors *file, size_t i)
{
    return &file->entries[i].tensor;
}

const atedm_host_tensor *atedm_safetensors_find(const atedm_safetensors *file, const char *name)
{
    size_t low = 0, high = file->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        const entry *e = &file->entries[file->by_name[mid]];
        int order = strcmp(name, e->name);
        if (order == 0)
            return &e->tensor;
        if (order < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}

void atedm_safetensors_drop(const atedm_safetensors *file, const atedm_host_tensor *tensor)
{
    uintptr_t data = (uintptr_t)tensor->data, map = (uintptr_t)file->map;
    if (data < map || data - map >= file->map_size)
        return; // the tensor belongs to another file
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t begin = (size_t)(data - map);
    size_t end = begin + (size_t)atedm_host_tensor_count(tensor) * atedm_dtype_size(tensor->dtype);
    // Whole pages only: the first and last page may also hold parts of other tensors, which may be
    // in use.
    begin = (begin + page - 1) / page * page;
    end = end / page * page;
    if (begin < end) // only advice: if it is refused, the process uses more memory
        (void)madvise(file->map + begin, end - begin, MADV_DONTNEED);
}
