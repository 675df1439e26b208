/* The lower bound: only the work that this machine needs to extract the layers of an oci-archive.
 *
 *     floor [-s] ARCHIVE ROOT OFFSET,SIZE,COMPRESSION...
 *
 * The same pipeline as ociroot's: a thread reads and hashes the blob, one decompresses, one hashes
 * the diff_id (of a plain layer the digest is the diff_id), and the main thread walks the headers
 * and creates the files in ROOT, an empty directory. No checks, no tree: existing files are removed
 * when the kernel returns EEXIST. It prints the digests, one line per layer.
 *
 * -s omits fchown(2) and fchmod(2) if creation has already set the owner and the mode.
 */
#define _GNU_SOURCE
#include "floor_pipeline.h"
#include "floor_directories.h"

#include <sys/sysmacros.h>

enum { BLOCK = 512 };

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

/* Strip leading `./` and `/`, and trailing `/`. */
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
