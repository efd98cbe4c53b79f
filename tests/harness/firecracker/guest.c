/* PID 1 of the tests on a real Firecracker: loads the modules in /modules in the order of their names, then answers
 * lines on vsock port 1024, one connection at a time: "poweroff", "panic", "count", "number", or the line itself. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/vm_sockets.h>

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

static void power_off(void) {
    int file = open("/sys/kernel/reboot/type", O_WRONLY);
    if (write(file, "kbd", 3) != 3) perror("reboot type");
    sync();
    reboot(RB_AUTOBOOT);
}

static void obey(FILE *host, const char *line) {
    static long number;
    if (!strcmp(line, "poweroff")) power_off();
    else if (!strcmp(line, "panic")) exit(3);
    else if (!strcmp(line, "count")) fprintf(host, "%ld\n", ++number);
    else if (!strcmp(line, "number")) fprintf(host, "%ld\n", number);
    else fprintf(host, "%s\n", line);
    fflush(host);
}

int main(void) {
    struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = 1024};
    mount("devtmpfs", "/dev", "devtmpfs", 0, "");
    mount("sysfs", "/sys", "sysfs", 0, "");
    int console = open("/dev/console", O_RDWR);
    if (console >= 0) { dup2(console, 0); dup2(console, 1); dup2(console, 2); }
    load_modules();
    int listener = socket(AF_VSOCK, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4)) { perror("vsock"); exit(1); }
    for (;;) {
        int connection = accept(listener, NULL, NULL);
        if (connection < 0) continue;
        FILE *host = fdopen(connection, "r+");
        char line[256];
        while (fgets(line, sizeof line, host)) {
            line[strcspn(line, "\n")] = 0;
            obey(host, line);
        }
        fclose(host);
    }
}
