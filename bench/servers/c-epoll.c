/* A lower bound of the cost: the least code that greets many concurrent clients and
 * closes correctly. Every connection is in epoll until its client closes; there
 * are no timeouts, no limits and no log, and an error closes the connection.
 *
 * With "merge" the greeting waits in the kernel for the shutdown that follows, so
 * that one packet contains both.
 *
 * usage: c-epoll PORT GREETING [merge] */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static int listen_on(int port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons(port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 4096) < 0)
        err(1, "cannot listen on port %d", port);
    return fd;
}

int main(int argc, char **argv)
{
    if (argc != 3 && argc != 4)
        errx(2, "usage: c-epoll PORT GREETING [merge]");

    const char *greeting = argv[2];
    size_t length = strlen(greeting);
    int flags = MSG_NOSIGNAL | (argc == 4 ? MSG_MORE : 0);
    int listener = listen_on(atoi(argv[1]));
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event events[256];
    struct epoll_event interest = { .events = EPOLLIN, .data.fd = listener };

    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &interest);
    for (;;) {
        int n = epoll_wait(epoll, events, 256, -1);

        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;

            if (fd != listener) {
                /* Input is not used: MSG_TRUNC discards it without a copy. */
                ssize_t received;
                do
                    received = recv(fd, NULL, 1 << 20, MSG_TRUNC);
                while (received > 0);
                if (received == 0 || events[i].events & (EPOLLERR | EPOLLHUP))
                    close(fd);
                continue;
            }
            while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
                if (send(fd, greeting, length, flags) != (ssize_t)length) {
                    close(fd);
                    continue;
                }
                shutdown(fd, SHUT_WR);
                interest.events = EPOLLIN | EPOLLET;
                interest.data.fd = fd;
                epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &interest);
            }
        }
    }
}
