/* Lets calls for paths that contain a text fail: the file FAULTS_FILE holds lines "CALL ERRNO TEXT". CALL is "stat",
   "open" (folders too), "list" or "read"; "read" is for files that were opened while the line was there. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FILES 65536
static unsigned char failing[FILES];

static int looked_up(const char *call, const char *path) {
    const char *name = getenv("FAULTS_FILE");
    char text[4096], *line, *rest = text;
    if (!name || !path) return 0;
    int file = syscall(SYS_openat, AT_FDCWD, name, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    long count = syscall(SYS_read, file, text, sizeof text - 1);
    syscall(SYS_close, file);
    text[count > 0 ? count : 0] = 0;
    while ((line = strsep(&rest, "\n"))) {
        char what[16], part[1024];
        int number;
        if (sscanf(line, "%15s %d %1023s", what, &number, part) == 3 && !strcmp(what, call) && strstr(path, part))
            return number;
    }
    return 0;
}

static int fault(const char *call, const char *path) {
    int before = errno;
    int number = looked_up(call, path);
    errno = before;
    return number;
}

#define REAL(type, name, ...)                                \
    static type (*real)(__VA_ARGS__);                        \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static int opened(int file, const char *path) {
    if (file >= 0 && file < FILES) failing[file] = fault("read", path);
    return file;
}

static int refused(const char *call, const char *path) {
    int number = fault(call, path);
    if (number) errno = number;
    return number;
}

int open64(const char *path, int flags, ...) {
    REAL(int, "open64", const char *, int, ...);
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
    va_end(more);
    return refused("open", path) ? -1 : opened(real(path, flags, mode), path);
}

int open(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
    va_end(more);
    return open64(path, flags, mode);
}

DIR *opendir(const char *path) {
    REAL(DIR *, "opendir", const char *);
    return refused("open", path) ? NULL : real(path);
}

int statx(int folder, const char *path, int flags, unsigned mask, struct statx *found) {
    REAL(int, "statx", int, const char *, int, unsigned, struct statx *);
    return refused("stat", path) ? -1 : real(folder, path, flags, mask, found);
}

static int listed(DIR *folder) {
    char link[64], path[1024];
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", dirfd(folder));
    long count = readlink(link, path, sizeof path - 1);
    path[count > 0 ? count : 0] = 0;
    errno = before;
    return !refused("list", path);
}

struct dirent64 *readdir64(DIR *folder) {
    REAL(struct dirent64 *, "readdir64", DIR *);
    return listed(folder) ? real(folder) : NULL;
}

struct dirent *readdir(DIR *folder) {
    REAL(struct dirent *, "readdir", DIR *);
    return listed(folder) ? real(folder) : NULL;
}

ssize_t read(int file, void *bytes, size_t count) {
    REAL(ssize_t, "read", int, void *, size_t);
    if (file >= 0 && file < FILES && failing[file]) {
        errno = failing[file];
        return -1;
    }
    return real(file, bytes, count);
}

ssize_t pread64(int file, void *bytes, size_t count, off64_t at) {
    REAL(ssize_t, "pread64", int, void *, size_t, off64_t);
    if (file >= 0 && file < FILES && failing[file]) {
        errno = failing[file];
        return -1;
    }
    return real(file, bytes, count, at);
}
