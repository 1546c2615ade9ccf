// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// A service that makes the calls it is told to. It listens on a TCP port of the loopback, which it prints, and obeys one
// connection after the other, a line at a time:
//
//	call NR COUNT       make a call on the main thread
//	threads N           have N threads wait for
//	begin NR COUNT      which has each of them make a call
//	done                how many threads are through
//	join                wait for all of them
//	fork N              start processes that sleep, and answer when they run
//	quit
//
// The answer is one line: "made GOOD FAILED ERRNO", with the errno of the last that failed. On the main thread nothing is
// used but read and write while it obeys, so that it can be asked while other threads are held.

#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { STACK = 32 << 10 };

static atomic_int generation, waiting, through;
static atomic_long good, failed;
static atomic_int last;
static long number, count;
static int threads;
static char *stacks;

static void make(long nr, long n)
{
	long g = 0, f = 0, e = 0;

	for (long i = 0; i < n; i++) {
		/* Arguments with which every call that the tests make does nothing, but socket: it makes one. */
		long ret = nr == SYS_socket ? syscall(nr, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)
			: nr == SYS_setns ? syscall(nr, -1, 0, 0)
			: syscall(nr, nr == SYS_personality ? 0xffffffffL : 0, 0, 0, 0, 0, 0);
		if (ret == -1) {
			e = errno;
			f++;
		} else {
			g++;
		}
	}
	atomic_fetch_add(&good, g);
	atomic_fetch_add(&failed, f);
	if (f)
		atomic_store(&last, (int)e);
}

static void *work(void *arg)
{
	int seen = 0;

	(void)arg;
	atomic_fetch_add(&waiting, 1);
	while (atomic_load(&generation) == seen)
		syscall(SYS_futex, &generation, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
	make(number, count);
	atomic_fetch_add(&through, 1);
	syscall(SYS_futex, &through, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	return NULL;
}

static void start(int n)
{
	pthread_attr_t attr;
	pthread_t id;

	stacks = mmap(NULL, (size_t)n * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (stacks == MAP_FAILED)
		exit(2);
	atomic_store(&waiting, 0);
	atomic_store(&through, 0);
	atomic_store(&generation, 0);
	threads = n;
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	for (int i = 0; i < n; i++) {
		pthread_attr_setstack(&attr, stacks + (size_t)i * STACK, STACK);
		if (pthread_create(&id, &attr, work, NULL))
			exit(3);
	}
	while (atomic_load(&waiting) < n)
		sched_yield();
}

static void spawn(int n)
{
	for (int i = 0; i < n; i++) {
		pid_t pid = fork();

		if (pid < 0)
			exit(4);
		while (!pid)
			pause();
	}
}

static int line(int fd, char *buf, int size)
{
	for (int n = 0; n < size - 1; n++) {
		if (read(fd, buf + n, 1) != 1)
			return 0;
		if (buf[n] == '\n') {
			buf[n] = 0;
			return 1;
		}
	}
	return 0;
}

static void report(int fd)
{
	char out[100];
	int n = snprintf(out, sizeof(out), "made %ld %ld %d\n", atomic_load(&good), atomic_load(&failed), atomic_load(&last));

	(void)!write(fd, out, n);
}

static void obey(int fd)
{
	char buf[200];
	long a, b;

	while (line(fd, buf, sizeof(buf))) {
		if (sscanf(buf, "call %ld %ld", &a, &b) == 2) {
			atomic_store(&good, 0), atomic_store(&failed, 0), atomic_store(&last, 0);
			make(a, b);
		} else if (sscanf(buf, "threads %ld", &a) == 1) {
			atomic_store(&good, 0), atomic_store(&failed, 0), atomic_store(&last, 0);
			start(a);
		} else if (sscanf(buf, "begin %ld %ld", &number, &count) == 2) {
			atomic_store(&generation, 1);
			syscall(SYS_futex, &generation, FUTEX_WAKE_PRIVATE, threads, NULL, NULL, 0);
		} else if (sscanf(buf, "fork %ld", &a) == 1) {
			spawn(a);
		} else if (!strcmp(buf, "join")) {
			for (int now; (now = atomic_load(&through)) < threads;)
				syscall(SYS_futex, &through, FUTEX_WAIT_PRIVATE, now, NULL, NULL, 0);
		} else if (!strcmp(buf, "done")) {
			char out[40];

			(void)!write(fd, out, snprintf(out, sizeof(out), "done %d\n", atomic_load(&through)));
			continue;
		} else if (!strcmp(buf, "quit")) {
			_exit(0);
		} else {
			exit(5);
		}
		report(fd);
	}
}

int main(void)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(addr);
	int l = socket(AF_INET, SOCK_STREAM, 0);

	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_IGN);
	if (l < 0 || bind(l, (struct sockaddr *)&addr, len) || listen(l, 16) || getsockname(l, (struct sockaddr *)&addr, &len))
		return 1;
	printf("port %d\n", ntohs(addr.sin_port));
	fflush(stdout);
	for (;;) {
		int fd = accept(l, NULL, NULL);

		if (fd < 0)
			continue;
		obey(fd);
		close(fd);
	}
}
