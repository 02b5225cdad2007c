// Byte-pair encoding: see tokenizer_bpe.h.
//
// Pairs wait in a heap ordered by rank, then place, as in the `tokenizers` library. So the tokens
// are the same as that library's even for vocabularies whose ranks no training would give.
#include "core/tokenizer_bpe.h"

#include "core/base/file.h"
#include "core/tokenizer.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define END_OF_WORD "</w>"
#define NONE UINT32_MAX

// transformers reads at most this many merges of CLIP: 49152 tokens less 256 bytes and 2 specials.
#define MAX_MERGES 48894

typedef struct pair {
    uint32_t left, right;
    uint32_t rank;   // NONE: an empty slot
    uint32_t merged; // id of the token that the pair becomes
} pair;

struct atedm_bpe {
    uint32_t symbols[2][256]; // id of a byte's symbol: [0] inside a word, [1] at its end
    pair *pairs;              // hash table with open addressing
    size_t mask;              // number of slots - 1; the number of slots is a power of two
};

typedef struct symbol {
    uint32_t id, begin;      // begin: index of its first byte in the word
    uint32_t previous, next; // neighbours; NONE at the ends
    bool gone;               // has been merged into the symbol before it
} symbol;

typedef struct candidate {
    uint32_t rank, place, merged;
} candidate;

struct atedm_bpe_work {
    symbol *symbols;
    candidate *heap;
    size_t heap_size;
    atedm_bpe_token *tokens;
};

// ---- loading

// The character that stands for a byte in the vocabulary, as UTF-8 (GPT-2's encoder): a printable
// Latin-1 character stands for itself; the other bytes are numbered from U+0100 on.
static void byte_symbol(unsigned byte, char ret_text[4])
{
    unsigned code = byte, shifted = 0x100;
    for (unsigned b = 0; b <= byte; b++) {
        bool printable = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        code = printable ? b : shifted++;
    }
    size_t n = 0;
    if (code >= 0x80)
        ret_text[n++] = (char)(0xc0 | (code >> 6));
    ret_text[n++] = (char)(code < 0x80 ? code : 0x80 | (code & 0x3f));
    ret_text[n] = '\0';
}

static uint32_t id_of(const json_t *vocab, const char *token, uint32_t otherwise)
{
    const json_t *id = json_object_get(vocab, token);
    return id ? (uint32_t)json_integer_value(id) : otherwise;
}

static void load_symbols(atedm_bpe *bpe, const json_t *vocab, uint32_t unknown)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        char text[4], last[4 + sizeof END_OF_WORD];
        byte_symbol(byte, text);
        snprintf(last, sizeof last, "%s" END_OF_WORD, text);
        bpe->symbols[0][byte] = id_of(vocab, text, unknown);
        bpe->symbols[1][byte] = id_of(vocab, last, unknown);
    }
}

static pair *slot_of(const atedm_bpe *bpe, uint32_t left, uint32_t right)
{
    uint64_t hash = ((uint64_t)left << 32 | right) * 0x9e3779b97f4a7c15u;
    size_t i = (size_t)(hash >> 32) & bpe->mask;
    while (bpe->pairs[i].rank != NONE &&
           (bpe->pairs[i].left != left || bpe->pairs[i].right != right))
        i = (i + 1) & bpe->mask;
    return &bpe->pairs[i];
}

// Adds the merge in a line "LEFT RIGHT". Changes `line`.
static atedm_status add_merge(atedm_bpe *bpe, const json_t *vocab, const char *path, size_t number,
                              char *line, uint32_t rank, atedm_error *err)
{
    char *rest = NULL;
    const char *left = strtok_r(line, " \t\r", &rest);
    const char *right = strtok_r(NULL, " \t\r", &rest);
    if (!left || !right || strtok_r(NULL, " \t\r", &rest))
        return atedm_error_set(err, ATEDM_ERR_FORMAT, "%s:%zu: not two symbols", path, number);
    char *joined = NULL;
    if (asprintf(&joined, "%s%s", left, right) < 0)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "%s: no memory", path);
    uint32_t ids[3] = {id_of(vocab, left, NONE), id_of(vocab, right, NONE),
                       id_of(vocab, joined, NONE)};
    free(joined);
    if (ids[0] == NONE || ids[1] == NONE || ids[2] == NONE)
        return atedm_error_set(err, ATEDM_ERR_FORMAT,
                               "%s:%zu: \"%.60s\", \"%.60s\" or the two together are not in the "
                               "vocabulary",
                               path, number, left, right);
    pair *slot = slot_of(bpe, ids[0], ids[1]);
    if (slot->rank == NONE) // the first of two equal lines counts
        *slot = (pair){ids[0], ids[1], rank, ids[2]};
    return ATEDM_OK;
}

static atedm_status load_merges(atedm_bpe *bpe, const json_t *vocab, const char *path,
                                atedm_error *err)
{
    char *text = NULL;
    size_t size = 0;
    atedm_status status = atedm_file_read(path, ATEDM_TOKENIZER_MAX_FILE, &text, &size, err);
    if (status)
        return status;
    if (memchr(text, '\0', size)) {
        status = atedm_error_set(err, ATEDM_ERR_FORMAT, "%s: contains a NUL byte", path);
        goto end;
    }
    char *at = strchr(text, '\n'); // the first line is always a comment
    size_t number = 1;
    for (uint32_t rank = 0; at && at[1] && rank < MAX_MERGES; rank++) {
        char *line = at + 1;
        at = strchr(line, '\n');
        if (at)
            *at = '\0';
        number++;
        // Blank lines at the end of the file are not merges.
        if (line[strspn(line, " \t\r")] == '\0' && !(at && at[1 + strspn(at + 1, " \t\r\n")]))
            break;
        status = add_merge(bpe, vocab, path, number, line, rank, err);
        if (status)
            goto end;
    }
end:
    free(text);
    return status;
}

atedm_status atedm_bpe_create(const json_t *vocab, uint32_t unknown, const char *merges_path,
                              atedm_bpe **ret_bpe, atedm_error *err)
{
    size_t slots = 1;
    while (slots < 2 * MAX_MERGES)
        slots *= 2;
    atedm_bpe *bpe = calloc(1, sizeof *bpe);
    if (bpe)
        bpe->pairs = malloc(slots * sizeof *bpe->pairs);
    if (!bpe || !bpe->pairs) {
        atedm_bpe_destroy(bpe);
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "%s: no memory", merges_path);
    }
    bpe->mask = slots - 1;
    for (size_t i = 0; i < slots; i++)
        bpe->pairs[i].rank = NONE;
    load_symbols(bpe, vocab, unknown);
    atedm_status status = load_merges(bpe, vocab, merges_path, err);
    if (status) {
        atedm_bpe_destroy(bpe);
        return status;
    }
    *ret_bpe = bpe;
    return ATEDM_OK;
}

void atedm_bpe_destroy(atedm_bpe *bpe)
{
    if (!bpe)
        return;
    free(bpe->pairs);
    free(bpe);
}

// ---- encoding

atedm_status atedm_bpe_work_create(size_t max_bytes, atedm_bpe_work **ret_work)
{
    atedm_bpe_work *work = calloc(1, sizeof *work);
    if (!work)
        return ATEDM_ERR_NOMEM;
    // The heap gets each of the first max_bytes - 1 pairs once, and at most two more at each merge.
    work->symbols = malloc((max_bytes + 1) * sizeof *work->symbols);
    work->heap = malloc((3 * max_bytes + 1) * sizeof *work->heap);
    work->tokens = malloc((max_bytes + 1) * sizeof *work->tokens);
    if (!work->symbols || !work->heap || !work->tokens) {
        atedm_bpe_work_destroy(work);
        return ATEDM_ERR_NOMEM;
    }
    *ret_work = work;
    return ATEDM_OK;
}

void atedm_bpe_work_destroy(atedm_bpe_work *work)
{
    if (!work)
        return;
    free(work->symbols);
    free(work->heap);
    free(work->tokens);
    free(work);
}

static bool before(candidate a, candidate b)
{
    return a.rank != b.rank ? a.rank < b.rank : a.place < b.place;
}

static void heap_push(atedm_bpe_work *work, candidate item)
{
    size_t i = work->heap_size++;
    while (i > 0 && before(item, work->heap[(i - 1) / 2])) {
        work->heap[i] = work->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    work->heap[i] = item;
}

static candidate heap_pop(atedm_bpe_work *work)
{
    candidate top = work->heap[0], last = work->heap[--work->heap_size];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= work->heap_size)
            break;
        if (child + 1 < work->heap_size && before(work->heap[child + 1], work->heap[child]))
            child++;
        if (!before(work->heap[child], last))
            break;
        work->heap[i] = work->heap[child];
        i = child;
    }
    work->heap[i] = last;
    return top;
}

// Puts the pair that begins with symbol `place` on the heap, if the pair has a rank.
static void offer(const atedm_bpe *bpe, atedm_bpe_work *work, uint32_t place)
{
    const symbol *s = &work->symbols[place];
    const pair *p = slot_of(bpe, s->id, work->symbols[s->next].id);
    if (p->rank != NONE)
        heap_push(work, (candidate){p->rank, place, p->merged});
}

// Merges the pair, unless one of its symbols has changed since it was put on the heap.
static void merge(const atedm_bpe *bpe, atedm_bpe_work *work, candidate c)
{
    symbol *s = &work->symbols[c.place];
    if (s->gone || s->next == NONE)
        return;
    symbol *right = &work->symbols[s->next];
    const pair *p = slot_of(bpe, s->id, right->id);
    if (p->rank == NONE || p->merged != c.merged)
        return;
    s->id = c.merged;
    s->next = right->next;
    right->gone = true;
    if (s->next != NONE)
        work->symbols[s->next].previous = c.place;
    if (s->previous != NONE)
        offer(bpe, work, s->previous);
    if (s->next != NONE)
        offer(bpe, work, c.place);
}

const atedm_bpe_token *atedm_bpe_encode(const atedm_bpe *bpe, const unsigned char *word,
                                        size_t size, atedm_bpe_work *work, size_t *ret_count)
{
    for (size_t i = 0; i < size; i++)
        work->symbols[i] = (symbol){.id = bpe->symbols[i + 1 == size][word[i]],
                                    .begin = (uint32_t)i,
                                    .previous = i ? (uint32_t)i - 1 : NONE,
                                    .next = i + 1 < size ? (uint32_t)i + 1 : NONE};
    work->heap_size = 0;
    for (size_t i = 0; i + 1 < size; i++)
        offer(bpe, work, (uint32_t)i);
    while (work->heap_size)
        merge(bpe, work, heap_pop(work));
    size_t count = 0;
    for (uint32_t i = 0; i != NONE; i = work->symbols[i].next)
        work->tokens[count++] = (atedm_bpe_token){work->symbols[i].id, work->symbols[i].begin};
    *ret_count = count;
    return work->tokens;
}
