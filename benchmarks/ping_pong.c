// The floor under a request's latency: messages of the same sizes to and fro over a bare TCP connection, by epoll like a
// server, between two processes on given cores.
//
//   ping_pong SERVER_CORE CLIENT_CORE REQUEST_BYTES ANSWER_BYTES COUNT    prints one round trip per line, nanoseconds
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_BYTES = 65536 };

static void check(int is_good, const char *what) {
    if (!is_good) {
        perror(what);
        exit(1);
    }
}

static void pin(int core) {
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET(core, &cores);
    check(sched_setaffinity(0, sizeof cores, &cores) == 0, "sched_setaffinity");
}

static int watch(int socket) {
    const int on = 1;
    check(setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0, "TCP_NODELAY");
    const int poller = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    check(poller >= 0 && epoll_ctl(poller, EPOLL_CTL_ADD, socket, &event) == 0, "epoll");
    return poller;
}

// Reads one message; 0: the peer has gone.
static int take(int poller, int socket, size_t count) {
    static char buffer[MAX_BYTES];
    while (count > 0) {
        struct epoll_event event;
        check(epoll_wait(poller, &event, 1, -1) == 1, "epoll_wait");
        const ssize_t got = recv(socket, buffer, count, MSG_DONTWAIT);
        if (got <= 0) return 0;
        count -= (size_t)got;
    }
    return 1;
}

static void give(int socket, size_t count) {
    static const char buffer[MAX_BYTES];
    check(send(socket, buffer, count, MSG_NOSIGNAL) == (ssize_t)count, "send");
}

int main(int argc, char **argv) {
    if (argc != 6) return 64;
    const int server_core = atoi(argv[1]), client_core = atoi(argv[2]), count = atoi(argv[5]);
    const size_t request = (size_t)atol(argv[3]), answer = (size_t)atol(argv[4]);
    if (request > MAX_BYTES || answer > MAX_BYTES || count < 1) return 64;

    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    check(bind(listener, (struct sockaddr *)&address, length) == 0 && listen(listener, 1) == 0, "listen");
    check(getsockname(listener, (struct sockaddr *)&address, &length) == 0, "getsockname");

    const pid_t server = fork();
    check(server >= 0, "fork");
    if (server == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pin(server_core);
        const int peer = accept(listener, NULL, NULL);
        const int poller = watch(peer);
        while (take(poller, peer, request)) give(peer, answer);
        return 0;
    }
    pin(client_core);
    const int peer = socket(AF_INET, SOCK_STREAM, 0);
    check(connect(peer, (struct sockaddr *)&address, length) == 0, "connect");
    const int poller = watch(peer);
    for (int i = 0; i < count; i++) {
        struct timespec begun, ended;
        clock_gettime(CLOCK_MONOTONIC, &begun);
        give(peer, request);
        check(take(poller, peer, answer), "answer");
        clock_gettime(CLOCK_MONOTONIC, &ended);
        printf("%ld\n", (ended.tv_sec - begun.tv_sec) * 1000000000L + ended.tv_nsec - begun.tv_nsec);
    }
    close(peer);
    waitpid(server, NULL, 0);
    return 0;
}
