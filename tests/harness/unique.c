// Prints what must differ between two guests of one template, a line "NAME VALUE" each: randomness from every door of
// the kernel, the layout of this process, and what TCP starts its connections with.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FIRST_PORT = 41000, PAIRS = 6, CLOSED = 9 };

static void fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static void hex(const char *name, const void *bytes, size_t count) {
    printf("%s ", name);
    for (size_t i = 0; i < count; i++) printf("%02x", ((const uint8_t *)bytes)[i]);
    printf("\n");
}

static void file(const char *name, const char *path, size_t limit, int is_text) {
    char bytes[64] = {0};
    int fd = open(path, O_RDONLY);
    ssize_t count = fd < 0 ? -1 : read(fd, bytes, limit);
    if (count <= 0) fail(path);
    close(fd);
    bytes[strcspn(bytes, is_text ? "\n" : "")] = is_text ? 0 : bytes[strlen(bytes)];
    if (is_text) printf("%s %s\n", name, bytes);
    else hex(name, bytes, (size_t)count);
}

// The timestamp option's value; 0 if there is none.
static uint32_t timestamp(const uint8_t *option, const uint8_t *end) {
    while (option < end && *option != TCPOPT_EOL) {
        if (*option == TCPOPT_NOP) { option++; continue; }
        if (option + 1 >= end || option[1] < 2) return 0;
        if (*option == TCPOPT_TIMESTAMP && option + 6 <= end) return ntohl(*(const uint32_t *)(option + 2));
        option += option[1];
    }
    return 0;
}

// The first packet of a connection from a port of ours to a closed one, seen by a raw socket.
static void connection(int raw, int number) {
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_port = htons(FIRST_PORT + number)};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(CLOSED)};
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK + number);
    int fd = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (fd < 0 || bind(fd, (struct sockaddr *)&from, sizeof from)) fail("bind");
    connect(fd, (struct sockaddr *)&to, sizeof to);
    close(fd);
    for (;;) {
        uint8_t packet[256];
        ssize_t count = recv(raw, packet, sizeof packet, 0);
        if (count < 40) fail("recv");
        const struct tcphdr *tcp = (const void *)(packet + (packet[0] & 15) * 4);
        if (ntohs(tcp->source) != FIRST_PORT + number || !tcp->syn) continue;
        printf("sequence-%d %08x\n", number, ntohl(tcp->seq));
        printf("timestamp-%d %08x\n", number, timestamp((const uint8_t *)(tcp + 1), (const uint8_t *)tcp + tcp->doff * 4));
        return;
    }
}

int main(void) {
    uint8_t random[16];
    uintptr_t canary;
    if (getrandom(random, sizeof random, 0) != sizeof random) fail("getrandom");
    hex("getrandom", random, sizeof random);
    file("urandom", "/dev/urandom", 16, 0);
    file("random", "/dev/random", 16, 0);
    file("uuid", "/proc/sys/kernel/random/uuid", 36, 1);
    file("boot-id", "/proc/sys/kernel/random/boot_id", 36, 1);
    file("machine-id", "/etc/machine-id", 32, 1);
    hex("at-random", (const void *)getauxval(AT_RANDOM), 16);
    __asm__("mov %%fs:0x28, %0" : "=r"(canary));
    printf("canary %lx\n", canary);
    printf("stack %lx\n", (uintptr_t)getauxval(AT_RANDOM));
    printf("code %lx\n", (uintptr_t)&main);
    printf("mapping %lx\n", (uintptr_t)mmap(0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    int raw = socket(AF_INET, SOCK_RAW, IPPROTO_TCP);
    if (raw < 0) fail("a raw socket");
    for (int number = 0; number < PAIRS; number++) connection(raw, number);
    return 0;
}
