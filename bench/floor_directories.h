/* The lower bound's directories: opened one name at a time, the last few kept open; replacement. */
#include <dirent.h>
#include <sys/stat.h>

enum { HANDLES = 64, PATH = 4096 };

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
static int root, sparing, finishing, handle_count;
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
    if (fd < 0 && finishing)
        return -1; /* a later layer has removed or replaced it */
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
    clock_hand = -1; /* handles of directories below are invalid */
}

static void empty(int fd) {
    DIR *open = fdopendir(fd);
    for (struct dirent *each; (each = readdir(open));)
        if (strcmp(each->d_name, ".") && strcmp(each->d_name, ".."))
            discard(fd, each->d_name);
    closedir(open);
}

static int by_path(const void *a, const void *b) {
    const directory *left = a, *right = b;
    int order = strcmp(left->path, right->path);
    return order ? order : (left->order > right->order) - (left->order < right->order);
}

/* Directories get their attributes when all files exist; the last entry counts. */
static void finish_directories(void) {
    finishing = 1;
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
            continue;
        if (!sparing || each->uid != geteuid() || each->gid != getegid())
            if (fchown(fd, each->uid, each->gid))
                die("fchown");
        if (fchmod(fd, each->mode) || futimens(fd, each->times))
            die("setting the attributes of %s", each->path);
        close(fd);
    }
}
