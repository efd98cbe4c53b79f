/* PID 1 of the VMM tests: loads the modules in /modules in the order of their names, then answers lines on the agent's port.
 *
 *   hello        -> "hello"
 *   disks        -> one line "serial bytes ro|rw" per block device, then "."
 *   write SERIAL TEXT, read SERIAL  -> the first 64 bytes of a disk
 *   nics         -> one line "mac" per network device, then "."
 *   say TEXT     -> TEXT on the console; flood -> the console is filled without end
 *   count        -> a process begins to count; counter -> how far it is
 *   use MIB      -> so much memory is written to and given up again
 *   poweroff, panic
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int port = -1;

static int by_name(const struct dirent **a, const struct dirent **b) { return strcmp((*a)->d_name, (*b)->d_name); }

static void load_modules(void) {
    struct dirent **names;
    int count = scandir("/modules", &names, 0, by_name);
    for (int i = 0; i < count; i++) {
        char path[512];
        snprintf(path, sizeof path, "/modules/%s", names[i]->d_name);
        int file = open(path, O_RDONLY | O_CLOEXEC);
        if (names[i]->d_name[0] != '.' && syscall(SYS_finit_module, file, "", 0) != 0) perror(path);
        close(file);
    }
}

static int first_line(const char *path, char *line, int size) {
    FILE *file = fopen(path, "r");
    line[0] = 0;
    if (!file) return -1;
    if (fgets(line, size, file)) line[strcspn(line, "\n")] = 0;
    fclose(file);
    return 0;
}

static int open_port(void) {
    DIR *ports = opendir("/sys/class/virtio-ports");
    int found = -1;
    for (struct dirent *entry; ports && found < 0 && (entry = readdir(ports));) {
        char path[512], name[64];
        snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", entry->d_name);
        if (entry->d_name[0] == '.' || first_line(path, name, sizeof name) || strcmp(name, "cuboid.agent.0")) continue;
        snprintf(path, sizeof path, "/dev/%s", entry->d_name);
        found = open(path, O_RDWR | O_CLOEXEC);
    }
    if (ports) closedir(ports);
    return found;
}

static void answer(const char *text) {
    if (write(port, text, strlen(text)) < 0 || write(port, "\n", 1) < 0) perror("port");
}

static void each(const char *folder, const char *attribute, int blocks) {
    DIR *devices = opendir(folder);
    for (struct dirent *entry; devices && (entry = readdir(devices));) {
        char path[600], value[128], size[32], ro[8], line[256];
        if (entry->d_name[0] == '.' || !strcmp(entry->d_name, "lo")) continue;
        snprintf(path, sizeof path, "%s/%s/%s", folder, entry->d_name, attribute);
        if (first_line(path, value, sizeof value)) continue;
        if (!blocks) { answer(value); continue; }
        snprintf(path, sizeof path, "%s/%s/size", folder, entry->d_name);
        first_line(path, size, sizeof size);
        snprintf(path, sizeof path, "%s/%s/ro", folder, entry->d_name);
        first_line(path, ro, sizeof ro);
        snprintf(line, sizeof line, "%s %lld %s", value, atoll(size) * 512, ro[0] == '1' ? "ro" : "rw");
        answer(line);
    }
    if (devices) closedir(devices);
    answer(".");
}

static int open_disk(const char *serial, int flags) {
    DIR *disks = opendir("/sys/block");
    int found = -1;
    for (struct dirent *entry; disks && found < 0 && (entry = readdir(disks));) {
        char path[512], value[64];
        snprintf(path, sizeof path, "/sys/block/%s/serial", entry->d_name);
        if (first_line(path, value, sizeof value) || strcmp(value, serial)) continue;
        snprintf(path, sizeof path, "/dev/%s", entry->d_name);
        found = open(path, flags | O_CLOEXEC);
    }
    if (disks) closedir(disks);
    return found;
}

static void disk_command(char *arguments, int writing) {
    static char sector[512] __attribute__((aligned(512)));
    char *text = strchr(arguments, ' ');
    if (text) *text++ = 0;
    int disk = open_disk(arguments, writing ? O_RDWR | O_DIRECT : O_RDONLY);
    memset(sector, 0, sizeof sector);
    if (writing && text) strncpy(sector, text, sizeof sector - 1);
    ssize_t done = writing ? pwrite(disk, sector, sizeof sector, 0) : pread(disk, sector, sizeof sector, 0);
    sector[64] = 0;
    answer(done == sizeof sector ? (writing ? "written" : sector) : "failed");
    close(disk);
}

static void flood(void) {
    for (;;) puts("flood flood flood flood flood flood flood flood flood flood flood flood flood flood");
}

static volatile long *counter;

static void count(void) {
    counter = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (fork() == 0) for (;;) { ++*counter; usleep(1000); }
    answer("counting");
}

static void tell_counter(void) {
    char line[32];
    snprintf(line, sizeof line, "%ld", counter ? *counter : -1);
    answer(line);
}

static void use(size_t size) {
    char *memory = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) { answer("failed"); return; }
    memset(memory, 'x', size);
    munmap(memory, size);
    answer("used");
}

static void obey(char *line) {
    if (!strcmp(line, "disks")) each("/sys/block", "serial", 1);
    else if (!strcmp(line, "nics")) each("/sys/class/net", "address", 0);
    else if (!strncmp(line, "write ", 6)) disk_command(line + 6, 1);
    else if (!strncmp(line, "read ", 5)) disk_command(line + 5, 0);
    else if (!strncmp(line, "say ", 4)) { puts(line + 4); answer("said"); }
    else if (!strcmp(line, "flood")) { answer("flooding"); if (fork() == 0) flood(); }
    else if (!strcmp(line, "count")) count();
    else if (!strcmp(line, "counter")) tell_counter();
    else if (!strncmp(line, "use ", 4)) use((size_t)atol(line + 4) << 20);
    else if (!strcmp(line, "poweroff")) { sync(); reboot(RB_POWER_OFF); }
    else if (!strcmp(line, "panic")) exit(3);
    else answer(line);
}

int main(void) {
    char buffer[512];
    int used = 0;
    mount("devtmpfs", "/dev", "devtmpfs", 0, "");
    mount("sysfs", "/sys", "sysfs", 0, "");
    int null = open("/dev/null", O_RDWR);
    dup2(null, 0); dup2(null, 1); dup2(null, 2);
    load_modules();
    int console = open("/dev/hvc0", O_WRONLY);
    if (console >= 0) { dup2(console, 1); dup2(console, 2); }
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("test guest is up");
    while ((port = open_port()) < 0) usleep(2000);
    answer("READY");
    for (;;) {
        struct pollfd wait = {.fd = port, .events = POLLIN};
        poll(&wait, 1, 1000);
        ssize_t size = read(port, buffer + used, sizeof buffer - 1 - used);
        if (size <= 0) { usleep(5000); used = 0; continue; } /* nobody is connected: wait for the next one */
        used += size;
        buffer[used] = 0;
        for (char *end; (end = strchr(buffer, '\n'));) {
            *end = 0;
            obey(buffer);
            used -= end + 1 - buffer;
            memmove(buffer, end + 1, used + 1);
        }
        if (used == sizeof buffer - 1) used = 0;
    }
}
