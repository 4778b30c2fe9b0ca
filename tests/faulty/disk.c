/* A disk that fails on demand, below a whole process: to be preloaded. tests/faulty/disk.py builds and drives it.

   FAULTY_DISK: the directory it is about. FAULTY_DISK_CONTROL: a file of six 32-bit numbers, read at every call:
   errno of syncs, every how many of them, milliseconds each takes, whether they hang, errno of whatever would change
   something, syncs so far (written here). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

struct control {
    volatile int32_t sync_error, every, delay_ms, hang, write_error, syncs;
};
static struct control *control;
static const char *directory;

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("FAULTY_DISK_CONTROL");
    directory = getenv("FAULTY_DISK");
    int fd = name && directory ? open(name, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *found = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (found != MAP_FAILED) control = found;
}

static int inside(const char *path) { return !strncmp(path, directory, strlen(directory)); }

static int ours(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return inside(path);
}

static int may_sync(int fd) {
    if (!control || !ours(fd)) return 1;
    while (control->hang) usleep(20000);
    if (control->delay_ms) usleep(1000 * control->delay_ms);
    int count = __sync_add_and_fetch(&control->syncs, 1);
    if (control->sync_error && count % (control->every ? control->every : 1) == 0) {
        errno = control->sync_error;
        return 0;
    }
    return 1;
}

static int may_write(int fd) {
    if (!control || !control->write_error || !ours(fd)) return 1;
    errno = control->write_error;
    return 0;
}

static int may_change(const char *path) {
    if (!control || !control->write_error || !inside(path)) return 1;
    errno = control->write_error;
    return 0;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int fdatasync(int fd) { return may_sync(fd) ? NEXT(fdatasync)(fd) : -1; }
int fsync(int fd) { return may_sync(fd) ? NEXT(fsync)(fd) : -1; }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    return may_write(fd) ? NEXT(pwrite)(fd, data, size, at) : -1;
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    return may_write(fd) ? NEXT(pwrite64)(fd, data, size, at) : -1;
}
ssize_t write(int fd, const void *data, size_t size) { return may_write(fd) ? NEXT(write)(fd, data, size) : -1; }
int ftruncate(int fd, off_t size) { return may_write(fd) ? NEXT(ftruncate)(fd, size) : -1; }
int ftruncate64(int fd, off64_t size) { return may_write(fd) ? NEXT(ftruncate64)(fd, size) : -1; }
int posix_fallocate(int fd, off_t at, off_t size) {
    return may_write(fd) ? NEXT(posix_fallocate)(fd, at, size) : control->write_error;
}
int posix_fallocate64(int fd, off64_t at, off64_t size) {
    return may_write(fd) ? NEXT(posix_fallocate64)(fd, at, size) : control->write_error;
}
int unlink(const char *path) { return may_change(path) ? NEXT(unlink)(path) : -1; }
int rename(const char *old, const char *new) { return may_change(old) ? NEXT(rename)(old, new) : -1; }

/* A read-only file system opens for reading only. */
#define OPEN(name)                                                                            \
    int name(const char *path, int flags, ...) {                                              \
        va_list rest;                                                                         \
        va_start(rest, flags);                                                                \
        mode_t mode = va_arg(rest, mode_t);                                                   \
        va_end(rest);                                                                         \
        if ((flags & (O_ACCMODE | O_CREAT)) != O_RDONLY && !may_change(path)) return -1;      \
        return NEXT(name)(path, flags, mode);                                                 \
    }
OPEN(open)
OPEN(open64)
