/* The floor: what this machine needs to extract the layers of an oci-archive, and nothing else.
 *
 *     floor [-s] ARCHIVE ROOT OFFSET,SIZE,COMPRESSION...
 *
 * The same pipeline as ociroot's: a thread reads and hashes the blob, one decompresses, one hashes
 * the diff_id (of a plain layer the digest is the diff_id), and the main thread walks the headers
 * and makes the files in ROOT, an empty directory. No checks, no tree: what is in the way is
 * removed when the kernel says that it is there. It prints what it hashed, a line a layer.
 *
 * -s spares fchown(2) and fchmod(2) where creation has already given the owner and the mode.
 */
#define _GNU_SOURCE
#include <dirent.h>
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
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <zstd.h>

enum { CHUNK = 256 << 10, BLOCK = 512, PACKED_SLOTS = 8, SLOTS = 64, HANDLES = 64, PATH = 4096 };

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

/* Chunks are used again: fresh ones would cost a page fault every 4 KiB. */
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

/* -- Directories: handles by path, the least recently used closed first. -- */

typedef struct {
    char *path;
    size_t size;
    mode_t mode;
    uid_t uid;
    gid_t gid;
    struct timespec times[2];
    size_t order;
} directory;

static struct handle {
    char path[PATH];
    size_t size;
    int fd;
    long used;
} handles[HANDLES];
static int root, sparing, handle_count;
static long clock_hand;
static directory *directories;
static size_t directory_count, directory_room;
static mode_t mask;

static void remember(const char *path, size_t size, mode_t mode, uid_t uid, gid_t gid,
                     struct timespec time) {
    if (directory_count == directory_room) {
        directory_room = directory_room ? 2 * directory_room : 1024;
        directories = realloc(directories, directory_room * sizeof *directories);
    }
    directory new = {strndup(path, size), size, mode, uid, gid, {time, time}, directory_count};
    directories[directory_count++] = new;
}

static void forget_handles(void) {
    while (handle_count)
        close(handles[--handle_count].fd);
}

static int handle_of(const char *path, size_t size) {
    if (!size)
        return root;
    static struct handle *last;
    if (last && last < handles + handle_count && last->size == size &&
        !memcmp(last->path, path, size)) {
        last->used = ++clock_hand;
        return last->fd;
    }
    struct handle *oldest = handles;
    for (struct handle *each = handles; each < handles + handle_count; each++) {
        if (each->size == size && !memcmp(each->path, path, size)) {
            each->used = ++clock_hand;
            last = each;
            return each->fd;
        }
        if (each->used < oldest->used)
            oldest = each;
    }
    const char *slash = memrchr(path, '/', size);
    size_t above = slash ? slash - path : 0, start = slash ? above + 1 : 0;
    char name[256];
    snprintf(name, sizeof name, "%.*s", (int)(size - start), path + start);
    int parent = handle_of(path, above);
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT && !mkdirat(parent, name, 0700)) {
        remember(path, size, 0755, 0, 0, (struct timespec){0, 0}); /* no entry speaks of it */
        fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    if (fd < 0)
        die("opening %.*s", (int)size, path);
    if (handle_count < HANDLES) {
        oldest = handles + handle_count++;
    } else { /* the way to the parent may have used what was the oldest */
        for (struct handle *each = handles; each < handles + HANDLES; each++)
            if (each->used < oldest->used)
                oldest = each;
        close(oldest->fd);
    }
    memcpy(oldest->path, path, size);
    oldest->size = size;
    oldest->fd = fd;
    oldest->used = ++clock_hand;
    last = oldest;
    return fd;
}

static void empty(int fd);

static void discard(int parent, const char *name) {
    if (!unlinkat(parent, name, 0) || errno == ENOENT)
        return;
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        die("removing %s", name);
    empty(fd);
    if (unlinkat(parent, name, AT_REMOVEDIR))
        die("removing %s", name);
    clock_hand = -1; /* handles of what was below are of no use any more */
}

static void empty(int fd) {
    DIR *open = fdopendir(fd);
    for (struct dirent *each; (each = readdir(open));)
        if (strcmp(each->d_name, ".") && strcmp(each->d_name, ".."))
            discard(fd, each->d_name);
    closedir(open);
}

/* -- The headers. -- */

static chunk *current;
static size_t position;
static int ended;

static size_t available(void) {
    while (!current || position == current->size) {
        if (current)
            release(current);
        position = 0;
        current = get(&unpacked);
        if (!current->size) {
            release(current);
            current = NULL;
            ended = 1;
            return 0;
        }
    }
    return current->size - position;
}

static size_t take(uint8_t **data, size_t wanted) {
    size_t there = available();
    size_t size = there < wanted ? there : wanted;
    *data = current ? current->data + position : NULL;
    position += size;
    return size;
}

static void copy(char *to, size_t size) {
    uint8_t *data;
    for (size_t part; size; size -= part, to += part) {
        if (!(part = take(&data, size)))
            die("truncated");
        memcpy(to, data, part);
    }
}

static void skip(long long size) {
    uint8_t *data;
    while (size > 0 && !ended)
        size -= take(&data, size);
}

static long long number(const uint8_t *field, int size) {
    long long value = 0;
    if (*field & 0x80) {
        for (int i = 1; i < size; i++)
            value = value << 8 | field[i];
        return value;
    }
    for (; size && (*field == ' ' || !*field); size--)
        field++;
    for (; size && *field >= '0' && *field <= '7'; size--)
        value = value << 3 | (*field++ - '0');
    return value;
}

typedef struct {
    char name[PATH], target[PATH];
    long long size;
    struct timespec time;
    int named, targeted, sized, timed;
} extension;

static void pax(char *body, size_t size, extension *more) {
    for (char *at = body, *end; at < body + size; at = end) {
        char *key;
        end = at + strtol(at, &key, 10);
        if (end <= at)
            return;
        char *value = ++key;
        while (*value != '=')
            value++;
        *value++ = 0;
        end[-1] = 0;
        if (!strcmp(key, "path")) {
            more->named = snprintf(more->name, PATH, "%s", value);
        } else if (!strcmp(key, "linkpath")) {
            more->targeted = snprintf(more->target, PATH, "%s", value);
        } else if (!strcmp(key, "size")) {
            more->sized = 1;
            more->size = atoll(value);
        } else if (!strcmp(key, "mtime")) {
            char *dot = strchr(value, '.'), digits[10] = "000000000";
            for (int i = 0; dot && i < 9 && dot[i + 1]; i++)
                digits[i] = dot[i + 1];
            more->timed = 1;
            more->time = (struct timespec){atoll(value), atol(digits)};
        }
    }
}

/* Drop `./` and `/` before, and `/` behind. */
static char *cleaned(char *path) {
    while (*path == '/' || (*path == '.' && (path[1] == '/' || !path[1])))
        path++;
    for (size_t size = strlen(path); size && path[size - 1] == '/';)
        path[--size] = 0;
    return path;
}

static void write_all(int fd, long long size) {
    uint8_t *data;
    while (size > 0) {
        size_t part = take(&data, size);
        if (!part)
            die("truncated");
        size -= part;
        for (ssize_t done; part; part -= done, data += done)
            if ((done = write(fd, data, part)) < 0)
                die("write");
    }
}

static void make_file(int parent, const char *name, mode_t mode, uid_t uid, gid_t gid,
                      long long size, struct timespec *times) {
    int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, fd;
    while ((fd = openat(parent, name, flags, mode & 0777)) < 0) {
        if (errno != EEXIST)
            die("making %s", name);
        discard(parent, name);
    }
    write_all(fd, size);
    if (!sparing || uid != geteuid() || gid != getegid())
        if (fchown(fd, uid, gid))
            die("fchown");
    if (!sparing || mode & (07000 | mask))
        if (fchmod(fd, mode))
            die("fchmod");
    if (futimens(fd, times))
        die("utimensat");
    close(fd);
}

static void make_other(uint8_t *header, int parent, const char *name, mode_t mode, uid_t uid,
                       gid_t gid, const char *target, struct timespec *times) {
    static const mode_t kinds[] = {['3'] = S_IFCHR, ['4'] = S_IFBLK, ['6'] = S_IFIFO};
    dev_t device = makedev(number(header + 329, 8), number(header + 337, 8));
    int type = header[156], failed;
    while ((failed = type == '2' ? symlinkat(target, parent, name)
                                 : mknodat(parent, name, kinds[type] | 0600, device))) {
        if (errno != EEXIST)
            die("making %s", name);
        discard(parent, name);
    }
    if (!sparing || uid != geteuid() || gid != getegid())
        if (fchownat(parent, name, uid, gid, AT_SYMLINK_NOFOLLOW))
            die("fchownat");
    if (type != '2' && fchmodat(parent, name, mode, 0))
        die("fchmodat");
    if (utimensat(parent, name, times, AT_SYMLINK_NOFOLLOW))
        die("utimensat");
}

static void make_link(int parent, const char *name, char *target) {
    target = cleaned(target);
    char *slash = strrchr(target, '/'), *base = slash ? slash + 1 : target;
    int from = dup(parent); /* looking up the one may close the other */
    int holder = handle_of(target, slash ? slash - target : 0);
    while (linkat(holder, base, from, name, 0)) {
        if (errno != EEXIST)
            die("linking %s", name);
        discard(from, name);
    }
    close(from);
}

static void make_directory(int parent, const char *name) {
    struct stat found;
    while (mkdirat(parent, name, 0700)) {
        if (errno != EEXIST || fstatat(parent, name, &found, AT_SYMLINK_NOFOLLOW))
            die("making %s", name);
        if (S_ISDIR(found.st_mode))
            return;
        discard(parent, name);
    }
}

static void whiteout(const char *path, size_t above, const char *name) {
    if (!strcmp(name, ".wh..wh..opq")) {
        empty(dup(handle_of(path, above)));
        forget_handles();
    } else if (strncmp(name, ".wh..wh.", 8)) {
        discard(handle_of(path, above), name + 4);
    }
}

static void make(uint8_t *header, extension *more) {
    char plain[260], plain_target[101];
    snprintf(plain_target, sizeof plain_target, "%.100s", header + 157);
    if (!memcmp(header + 257, "ustar", 6) && header[345])
        snprintf(plain, sizeof plain, "%.155s/%.100s", header + 345, header);
    else
        snprintf(plain, sizeof plain, "%.100s", header);
    char *path = cleaned(more->named ? more->name : plain);
    char *target = more->targeted ? more->target : plain_target;
    long long size = more->sized ? more->size : number(header + 124, 12);
    struct timespec time = {number(header + 136, 12), 0};
    if (more->timed)
        time = more->time;
    struct timespec times[2] = {time, time};
    mode_t mode = number(header + 100, 8) & 07777;
    uid_t uid = number(header + 108, 8);
    gid_t gid = number(header + 116, 8);
    char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    size_t above = slash ? slash - path : 0;
    int type = header[156] ? header[156] : '0';
    clock_hand = clock_hand < 0 ? 0 : clock_hand;

    if (!strncmp(name, ".wh.", 4)) {
        whiteout(path, above, name);
    } else if (type == '5') {
        if (*path)
            make_directory(handle_of(path, above), name);
        remember(path, strlen(path), mode, uid, gid, time);
    } else if (type == '1') {
        make_link(handle_of(path, above), name, target);
    } else if (type == '0' || type == '7') {
        make_file(handle_of(path, above), name, mode, uid, gid, size, times);
        skip(-size & (BLOCK - 1));
    } else {
        make_other(header, handle_of(path, above), name, mode, uid, gid, target, times);
    }
    if (clock_hand < 0)
        forget_handles();
}

static void walk(void) {
    static extension more;
    uint8_t seam[BLOCK], *header;
    ended = more.named = more.targeted = more.sized = more.timed = 0;
    while (available()) {
        if (current->size - position >= BLOCK) {
            take(&header, BLOCK);
        } else {
            header = seam;
            copy((char *)seam, BLOCK);
        }
        if (!*header)
            break;
        if (strchr("xgLK", header[156]) && header[156]) {
            long long size = number(header + 124, 12);
            char *body = malloc(size + 1);
            copy(body, size);
            body[size] = 0;
            skip(-size & (BLOCK - 1));
            if (header[156] == 'x')
                pax(body, size, &more);
            else if (header[156] == 'L')
                more.named = snprintf(more.name, PATH, "%s", body);
            else if (header[156] == 'K')
                more.targeted = snprintf(more.target, PATH, "%s", body);
            free(body);
            continue;
        }
        uint8_t kept[BLOCK];
        memcpy(kept, header, BLOCK); /* its chunk may be released before the entry is made */
        make(kept, &more);
        more.named = more.targeted = more.sized = more.timed = 0;
    }
    while (!ended && available())
        position = current->size;
}

static int by_path(const void *a, const void *b) {
    const directory *left = a, *right = b;
    int order = strcmp(left->path, right->path);
    return order ? order : (left->order > right->order) - (left->order < right->order);
}

/* Directories get their attributes when everything is in place; the last entry counts. */
static void finish_directories(void) {
    if (directory_count)
        qsort(directories, directory_count, sizeof *directories, by_path);
    for (size_t i = 0; i < directory_count; i++) {
        directory *each = directories + i;
        if (i + 1 < directory_count && !strcmp(each->path, each[1].path))
            continue;
        char *slash = strrchr(each->path, '/'), *name = slash ? slash + 1 : each->path;
        size_t above = slash ? slash - each->path : 0;
        int fd = openat(*name ? handle_of(each->path, above) : root, *name ? name : ".",
                        O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
            continue; /* a later layer has removed or replaced it */
        if (!sparing || each->uid != geteuid() || each->gid != getegid())
            if (fchown(fd, each->uid, each->gid))
                die("fchown");
        if (fchmod(fd, each->mode) || futimens(fd, each->times))
            die("setting the attributes of %s", each->path);
        close(fd);
    }
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "-s")) {
        sparing = 1;
        argv++;
        argc--;
    }
    if (argc < 4)
        die("floor [-s] ARCHIVE ROOT OFFSET,SIZE,COMPRESSION...");
    if ((archive = open(argv[1], O_RDONLY | O_CLOEXEC)) < 0)
        die("%s", argv[1]);
    if ((root = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        die("%s", argv[2]);
    umask(mask = umask(0));
    layer_count = argc - 3;
    layers = calloc(layer_count, sizeof *layers);
    for (int i = 0; i < layer_count; i++)
        if (sscanf(argv[i + 3], "%lld,%lld,%7s", &layers[i].offset, &layers[i].size,
                   layers[i].compression) != 3)
            die("%s", argv[i + 3]);

    void *(*stages[])(void *) = {read_blobs, decode, hash_layers};
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        if (pthread_create(threads + i, NULL, stages[i], NULL))
            die("pthread_create");
    for (int i = 0; i < layer_count; i++)
        walk();
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    finish_directories();
    for (layer *each = layers; each < layers + layer_count; each++)
        printf("%s %s\n", each->digest, *each->diff_id ? each->diff_id : each->digest);
    return 0;
}
