// Which backends and devices there are, and what their names mean: see kernels.h.
#include "kernels/device_names.h"

#include "kernels/cuda_load.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define UUID_KIND 4         // bytes of "GPU-"; the same device is "MIG-" to those who named it so
#define BACKEND_NAME_MAX 16 // bytes

static const atedm_backend *const backends[] = {
    &atedm_backend_ref,
    &atedm_backend_cpu,
    &atedm_backend_dry,
};

// ---- backends

const char *atedm_backend_of(const char *name)
{
    const atedm_backend *unused = NULL;
    if (strcmp(name, "auto") != 0)
        return name;
    return atedm_cuda_load(&unused, NULL) ? "cpu" : "cuda";
}

// NULL where there is none: then *ret_status says why.
static const atedm_backend *find_backend(const char *name, atedm_status *ret_status,
                                         atedm_error *err)
{
    const atedm_backend *backend = NULL;
    for (size_t i = 0; i < sizeof backends / sizeof *backends; i++) {
        if (strcmp(backends[i]->name, name) == 0)
            return backends[i];
    }
    if (strcmp(name, "cuda") == 0)
        *ret_status = atedm_cuda_load(&backend, err);
    else
        *ret_status = atedm_error_set(err, ATEDM_ERR_NOT_FOUND, "there is no backend \"%s\"", name);
    return backend;
}

// ---- devices

// One at least: a backend that loads had devices then, which may have gone since.
static atedm_status list_devices(const atedm_backend *backend,
                                 atedm_device_facts ret_facts[ATEDM_MAX_DEVICES], size_t *ret_count,
                                 atedm_error *err)
{
    size_t count = 1;
    if (backend->devices) {
        count = backend->devices(ret_facts);
    } else {
        ret_facts[0] = (atedm_device_facts){.index = 0};
        snprintf(ret_facts[0].name, sizeof ret_facts[0].name, "%s", backend->name);
    }
    if (!count)
        return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED, "%s: no device answers", backend->name);
    *ret_count = count;
    return ATEDM_OK;
}

// Whether `text` is the device's index, its UUID or the beginning of that.
static bool is_meant(const atedm_device_facts *facts, const char *text, size_t size)
{
    char index[16];
    int digits = snprintf(index, sizeof index, "%d", facts->index);
    if (size && isdigit((unsigned char)*text))
        return size == (size_t)digits && memcmp(text, index, size) == 0;
    return size > UUID_KIND && size <= strlen(facts->uuid) &&
           (memcmp(text, "GPU-", UUID_KIND) == 0 || memcmp(text, "MIG-", UUID_KIND) == 0) &&
           memcmp(text + UUID_KIND, facts->uuid + UUID_KIND, size - UUID_KIND) == 0;
}

static atedm_status refuse(const atedm_device_facts *facts, size_t count, const char *text,
                           size_t size, atedm_error *err)
{
    char list[ATEDM_ERROR_MAX] = "";
    size_t used = 0;
    for (size_t i = 0; i < count && used < sizeof list; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s (%s, %s)", i ? ", " : "",
                                 facts[i].name, facts[i].model, facts[i].uuid);
    return atedm_error_set(err, ATEDM_ERR_NOT_FOUND, "there is no device \"%.*s\"; there are: %s",
                           (int)size, text, list);
}

static atedm_status find_device(const atedm_device_facts *facts, size_t count, const char *text,
                                size_t size, size_t *ret_found, atedm_error *err)
{
    size_t found = count;
    for (size_t i = 0; i < count; i++) {
        if (!is_meant(&facts[i], text, size))
            continue;
        if (found < count)
            return atedm_error_set(err, ATEDM_ERR_INVALID, "\"%.*s\" may be %s or %s", (int)size,
                                   text, facts[found].name, facts[i].name);
        found = i;
    }
    if (found == count)
        return refuse(facts, count, text, size, err);
    *ret_found = found;
    return ATEDM_OK;
}

static atedm_status select_devices(const atedm_device_facts *facts, size_t count, const char *text,
                                   atedm_device_facts *ret_facts, size_t *ret_count,
                                   atedm_error *err)
{
    size_t n = 0;
    for (const char *at = text;; at++) {
        size_t size = strcspn(at, ",");
        size_t found = 0;
        atedm_status status = find_device(facts, count, at, size, &found, err);
        if (status)
            return status;
        for (size_t i = 0; i < n; i++) {
            if (ret_facts[i].index == facts[found].index)
                return atedm_error_set(err, ATEDM_ERR_INVALID, "%s is there twice",
                                       facts[found].name);
        }
        ret_facts[n++] = facts[found]; // no more than there are, since each is there once
        at += size;
        if (!*at)
            break;
    }
    *ret_count = n;
    return ATEDM_OK;
}

atedm_status atedm_devices_select(const char *name, const char *selection,
                                  atedm_device_facts ret_facts[ATEDM_MAX_DEVICES],
                                  size_t *ret_count, atedm_error *err)
{
    atedm_device_facts facts[ATEDM_MAX_DEVICES];
    atedm_status status = ATEDM_OK;
    const atedm_backend *backend = find_backend(name, &status, err);
    if (!backend)
        return status;
    bool all = strcmp(selection, "auto") == 0;
    if (!all && !backend->devices)
        return atedm_error_set(err, ATEDM_ERR_INVALID,
                               "the %s backend has no devices to choose from", name);
    size_t count = 0;
    status = list_devices(backend, facts, &count, err);
    if (status)
        return status;
    if (!all)
        return select_devices(facts, count, selection, ret_facts, ret_count, err);
    memcpy(ret_facts, facts, count * sizeof *facts);
    *ret_count = count;
    return ATEDM_OK;
}

atedm_status atedm_devices_find(const char *name, const atedm_backend **ret_backend,
                                atedm_device_facts *ret_facts, atedm_error *err)
{
    char base[BACKEND_NAME_MAX];
    const char *colon = strchr(name, ':');
    size_t size = colon ? (size_t)(colon - name) : strlen(name);
    if (size >= sizeof base)
        return atedm_error_set(err, ATEDM_ERR_NOT_FOUND, "there is no backend \"%s\"", name);
    snprintf(base, sizeof base, "%.*s", (int)size, name);
    atedm_status status = ATEDM_OK;
    const atedm_backend *backend = find_backend(base, &status, err);
    if (!backend)
        return status;
    if (colon && !backend->devices)
        return atedm_error_set(err, ATEDM_ERR_NOT_FOUND, "there is no backend \"%s\"", name);
    atedm_device_facts facts[ATEDM_MAX_DEVICES];
    size_t count = 0, found = 0;
    status = list_devices(backend, facts, &count, err);
    if (!status && colon)
        status = find_device(facts, count, colon + 1, strlen(colon + 1), &found, err);
    if (status)
        return status;
    *ret_backend = backend;
    *ret_facts = facts[found];
    return ATEDM_OK;
}
