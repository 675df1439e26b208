/* The lower bound's threads: read and hash the blob, decompress it, hash the output. */
#include <errno.h>
#include <fcntl.h>
#include <isa-l.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

enum { CHUNK = 256 << 10, PACKED_SLOTS = 8, SLOTS = 64 };

static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, ": %s\n", strerror(errno));
    exit(1);
}

/* -- Chunks and channels: a chunk without bytes ends a layer. -- */

typedef struct chunk {
    struct chunk *next;
    int users;
    size_t size;
    uint8_t data[CHUNK];
} chunk;

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t filled, emptied;
    chunk *items[SLOTS];
    int slots, first, count;
} channel;

#define CHANNEL(n) \
    {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, PTHREAD_COND_INITIALIZER, {0}, n, 0, 0}
static channel packed = CHANNEL(PACKED_SLOTS), unpacked = CHANNEL(SLOTS), to_hash = CHANNEL(SLOTS);

/* Chunks are reused: new ones would cost a page fault every 4 KiB. */
static chunk *spare;
static pthread_mutex_t spare_lock = PTHREAD_MUTEX_INITIALIZER;

static chunk *fresh(void) {
    pthread_mutex_lock(&spare_lock);
    chunk *found = spare;
    if (found)
        spare = found->next;
    pthread_mutex_unlock(&spare_lock);
    if (!found && !(found = malloc(sizeof *found)))
        die("malloc");
    found->users = 1;
    found->size = 0;
    return found;
}

static void release(chunk *done) {
    if (__atomic_sub_fetch(&done->users, 1, __ATOMIC_ACQ_REL))
        return;
    pthread_mutex_lock(&spare_lock);
    done->next = spare;
    spare = done;
    pthread_mutex_unlock(&spare_lock);
}

static void put(channel *to, chunk *item) {
    pthread_mutex_lock(&to->lock);
    while (to->count == to->slots)
        pthread_cond_wait(&to->emptied, &to->lock);
    to->items[(to->first + to->count++) % to->slots] = item;
    pthread_cond_signal(&to->filled);
    pthread_mutex_unlock(&to->lock);
}

static chunk *get(channel *from) {
    pthread_mutex_lock(&from->lock);
    while (!from->count)
        pthread_cond_wait(&from->filled, &from->lock);
    chunk *item = from->items[from->first];
    from->first = (from->first + 1) % from->slots;
    from->count--;
    pthread_cond_signal(&from->emptied);
    pthread_mutex_unlock(&from->lock);
    return item;
}

/* -- The stages. -- */

typedef struct {
    long long offset, size;
    char compression[8];
    char digest[65], diff_id[65];
} layer;

static layer *layers;
static int layer_count, archive;

static void hex(EVP_MD_CTX *hash, char *text) {
    uint8_t value[EVP_MAX_MD_SIZE];
    unsigned size;
    EVP_DigestFinal_ex(hash, value, &size);
    for (unsigned i = 0; i < size; i++)
        sprintf(text + 2 * i, "%02x", value[i]);
}

static void *read_blobs(void *unused) {
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    for (layer *each = layers; each < layers + layer_count; each++) {
        EVP_DigestInit_ex(hash, EVP_sha256(), NULL);
        for (long long at = 0; at < each->size;) {
            chunk *item = fresh();
            size_t wanted = each->size - at < CHUNK ? each->size - at : CHUNK;
            ssize_t size = pread(archive, item->data, wanted, each->offset + at);
            if (size <= 0)
                die("reading the archive");
            item->size = size;
            at += size;
            item->users = 2; /* it is hashed while the next stage is at it */
            put(&packed, item);
            EVP_DigestUpdate(hash, item->data, size);
            release(item);
        }
        hex(hash, each->digest);
        put(&packed, fresh());
    }
    EVP_MD_CTX_free(hash);
    return unused;
}

static void hand_on(chunk *item, int hashed) {
    if (hashed) {
        item->users = 2;
        put(&to_hash, item);
    }
    put(&unpacked, item);
}

static void inflate(chunk *in, struct inflate_state *state, chunk **out) {
    state->next_in = in->data;
    state->avail_in = in->size;
    for (;;) {
        if (state->block_state == ISAL_BLOCK_FINISH) {
            if (!state->avail_in)
                return;
            isal_inflate_reset(state); /* another member */
            state->crc_flag = ISAL_GZIP;
        }
        state->next_out = (*out)->data + (*out)->size;
        state->avail_out = CHUNK - (*out)->size;
        if (isal_inflate(state) != ISAL_DECOMP_OK)
            die("bad gzip data");
        (*out)->size = CHUNK - state->avail_out;
        if ((*out)->size == CHUNK) {
            hand_on(*out, 1);
            *out = fresh();
        } else if (state->block_state != ISAL_BLOCK_FINISH) {
            return;
        }
    }
}

static void unzstd(chunk *in, ZSTD_DStream *state, chunk **out) {
    ZSTD_inBuffer from = {in->data, in->size, 0};
    for (;;) {
        ZSTD_outBuffer to = {(*out)->data, CHUNK, (*out)->size};
        if (ZSTD_isError(ZSTD_decompressStream(state, &to, &from)))
            die("bad zstd data");
        (*out)->size = to.pos;
        if (to.pos < CHUNK) {
            if (from.pos == from.size)
                return;
        } else {
            hand_on(*out, 1);
            *out = fresh();
        }
    }
}

static void *decode(void *unused) {
    struct inflate_state *gzip = malloc(sizeof *gzip);
    ZSTD_DStream *zstd = ZSTD_createDStream();
    for (layer *each = layers; each < layers + layer_count; each++) {
        int plain = !strcmp(each->compression, "none"), is_gzip = !strcmp(each->compression, "gzip");
        chunk *in, *out = fresh();
        isal_inflate_init(gzip);
        gzip->crc_flag = ISAL_GZIP;
        ZSTD_initDStream(zstd);
        while ((in = get(&packed))->size) {
            if (plain) {
                hand_on(in, 0);
                continue;
            }
            if (is_gzip)
                inflate(in, gzip, &out);
            else
                unzstd(in, zstd, &out);
            release(in);
        }
        release(in);
        if (out->size) {
            hand_on(out, 1);
            out = fresh();
        }
        hand_on(out, !plain);
    }
    free(gzip);
    ZSTD_freeDStream(zstd);
    return unused;
}

static void *hash_layers(void *unused) {
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    for (layer *each = layers; each < layers + layer_count; each++) {
        if (!strcmp(each->compression, "none"))
            continue;
        EVP_DigestInit_ex(hash, EVP_sha256(), NULL);
        chunk *item;
        while ((item = get(&to_hash))->size) {
            EVP_DigestUpdate(hash, item->data, item->size);
            release(item);
        }
        release(item);
        hex(hash, each->diff_id);
    }
    EVP_MD_CTX_free(hash);
    return unused;
}
