/* A program of an attacker in the place of greeter: tries to leave the sandbox of its unit,
 * and sends the client one line per attempt, "NAME: refused" or "NAME: succeeded". */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <netinet/in.h>
#include <unistd.h>

static int client;

static void report(const char *name, int succeeded) {
	dprintf(client, "%s: %s\n", name, succeeded ? "succeeded" : "refused");
}

static int can_connect(const char *path) {
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
	return fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
}

static int can_write(const char *directory) {
	char path[256];
	snprintf(path, sizeof(path), "%s/intruder", directory);
	return open(path, O_CREAT | O_WRONLY, 0700) >= 0;
}

/* Executes a file in a child process; whether the child got beyond execve(2). */
static int can_execute(int fd) {
	char *arguments[] = {"true", NULL}, *environment[] = {NULL};
	int status;
	pid_t child = fork();
	if (child == 0) {
		fexecve(fd, arguments, environment);
		_exit(111);
	}
	return child > 0 && waitpid(child, &status, 0) == child &&
		!(WIFEXITED(status) && WEXITSTATUS(status) == 111);
}

/* Its own code from a file in memory. */
static int can_execute_memory(void) {
	char buffer[65536];
	ssize_t length;
	int to = memfd_create("intruder", 0), from = open("/proc/self/exe", O_RDONLY);
	if (to < 0 || from < 0)
		return 0;
	while ((length = read(from, buffer, sizeof(buffer))) > 0)
		if (write(to, buffer, (size_t)length) != length)
			return 0;
	return can_execute(to);
}

/* A signal to any process but this one. */
static int can_signal(void) {
	int pid, found = 0;
	for (pid = 1; pid < 70000; pid++)
		if (pid != getpid() && (kill(pid, 0) == 0 || syscall(SYS_tgkill, pid, pid, 0) == 0))
			found = 1;
	return found;
}

static int can_write_and_execute(void) {
	return mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) !=
		MAP_FAILED;
}

int main(int argc, char **argv) {
	int listening = 0;
	socklen_t size = sizeof(listening);
	static const char *const sockets[] = {
		"/run/dbus/system_bus_socket", "/run/systemd/private", "/run/systemd/resolve/io.systemd.Resolve",
		"/run/systemd/userdb/io.systemd.DynamicUser", "/run/systemd/io.systemd.ManagedOOM",
		"/run/udev/control", NULL};
	static const char *const directories[] = {
		"/", "/dev/shm", "/dev/mqueue", "/tmp", "/var/tmp", "/run", "/run/greeter", "/etc/greeter",
		"/usr/bin", "/proc/self", "/dev", "/run/systemd/journal", NULL};
	(void)argc;
	if (strstr(argv[0], "true"))
		return 0;
	client = getenv("LISTEN_FDS") ? 3 : 0;
	if (getsockopt(client, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0 && listening)
		client = accept(client, NULL, NULL);
	for (int i = 0; sockets[i]; i++)
		report(sockets[i], can_connect(sockets[i]));
	for (int i = 0; directories[i]; i++)
		report(directories[i], can_write(directories[i]));
	report("execute memory", can_execute_memory());
	report("writable code", can_write_and_execute());
	report("signal to others", can_signal());
	report("ptrace", ptrace(PTRACE_ATTACH, 1, NULL, NULL) == 0);
	report("/proc of process 1", access("/proc/1/status", R_OK) == 0);
	report("IPv4 socket", socket(AF_INET, SOCK_STREAM, 0) >= 0);
	report("IPv6 socket", socket(AF_INET6, SOCK_DGRAM, 0) >= 0);
	report("netlink socket", socket(AF_NETLINK, SOCK_RAW, 0) >= 0);
	report("packet socket", socket(AF_PACKET, SOCK_RAW, 0) >= 0);
	report("user namespace", unshare(CLONE_NEWUSER) == 0);
	report("mount", mount("none", "/", NULL, MS_REMOUNT, NULL) == 0);
	report("chroot", chroot("/usr") == 0);
	report("setuid", setuid(0) == 0);
	report("real-time", sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){1}) == 0);
	report("set-user-ID file", chmod("/tmp", 04777) == 0);
	report("bpf", syscall(SYS_bpf, 0, NULL, 0) >= 0);
	report("keyring", syscall(SYS_keyctl, 0, -3, 1) >= 0);
	dprintf(client, "end\n");
	shutdown(client, SHUT_WR);
	return 0;
}
