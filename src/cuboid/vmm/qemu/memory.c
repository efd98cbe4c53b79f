/* Loaded into the VMM of a clone (LD_PRELOAD), so that memory which its guest frees goes back to the host.
 *
 * A clone's memory is a private mapping of its template's file. When the guest reports free pages, QEMU (system/physmem.c,
 * ram_block_discard_range) punches a hole into the file and drops the mapped pages. It refuses the whole of it if the file
 * is open for reading only; were it not, it would take the pages from the template and so from every other clone.
 *
 * So the file is opened for reading although QEMU asks to write, and the hole is not made: dropping the mapped pages is
 * what frees memory. What the guest finds there later is the template's page again: not zeros, but reported pages have
 * no content that a guest may rely on. The file could not be written to anyway: its mount is read-only.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MEMORY "/boot/memory"

static int memory = -1;

static int open_file(const char *path, int flags, mode_t mode) {
    if (strcmp(path, MEMORY) != 0) return syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    memory = syscall(SYS_openat, AT_FDCWD, path, (flags & ~O_ACCMODE) | O_RDONLY, 0);
    return memory;
}

int open64(const char *path, int flags, ...) {
    mode_t mode = 0;
    if (flags & (O_CREAT | O_TMPFILE)) {
        va_list rest;
        va_start(rest, flags);
        mode = va_arg(rest, mode_t);
        va_end(rest);
    }
    return open_file(path, flags, mode);
}

int __open64_2(const char *path, int flags) { return open_file(path, flags, 0); }

int fallocate64(int file, int mode, off64_t offset, off64_t length) {
    if (file == memory && (mode & FALLOC_FL_PUNCH_HOLE)) return 0;
    return syscall(SYS_fallocate, file, mode, offset, length);
}
