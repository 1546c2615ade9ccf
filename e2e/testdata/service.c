// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// A service with a master and a worker, as nginx has them, built without a C library. The worker gives up its privileges
// when it is born, then answers connections: "w NAME" makes it call NAME, "m NAME" has the master do it. SIGHUP replaces
// the worker, SIGTERM ends both. Its argument is the port. A worker that could not give up its
// privileges answers everything with -2000.

#include "calls.h"

#define HUP 1
#define TERM 15
#define CHLD 17

static long control[2]; /* the worker's end, the master's */
static long listener;

static long number(const char *s)
{
	long n = 0;

	while (*s >= '0' && *s <= '9')
		n = 10 * n + *s++ - '0';
	return n;
}

static void answer(long fd, long v)
{
	char text[24];
	int n = sizeof(text), minus = v < 0;

	text[--n] = '\n';
	if (minus)
		v = -v;
	do
		text[--n] = '0' + v % 10;
	while (v /= 10);
	if (minus)
		text[--n] = '-';
	call(__NR_write, fd, (long)(text + n), sizeof(text) - n, 0);
}

static void work(void)
{
	char line[64];
	long born;

	born = call(__NR_setgroups, 0, 0, 0, 0);
	if (!born)
		born = call(__NR_setgid, 65534, 0, 0, 0);
	if (!born)
		born = call(__NR_setuid, 65534, 0, 0, 0);
	for (;;) {
		long fd = call(__NR_accept, listener, 0, 0, 0), n, r;

		if (fd < 0)
			continue;
		while ((n = call(__NR_read, fd, (long)line, sizeof(line), 0)) > 0) {
			while (n && (line[n - 1] == '\n' || line[n - 1] == '\r'))
				n--;
			if (born) {
				answer(fd, -2000);
			} else if (n > 2 && line[0] == 'm') {
				call(__NR_write, control[0], (long)(line + 2), n - 2, 0);
				if (call(__NR_read, control[0], (long)&r, sizeof(r), 0) == sizeof(r))
					answer(fd, r);
			} else if (n > 2) {
				answer(fd, attack(line + 2, n - 2));
			} else {
				answer(fd, 0);
			}
		}
		call(__NR_close, fd, 0, 0, 0);
	}
}

static long fork(void)
{
	long pid = call(__NR_clone, CHLD, 0, 0, 0);

	if (pid == 0)
		work();
	return pid;
}

__attribute__((used)) static void run(long *stack)
{
	static const unsigned long mask = 1 << (HUP - 1) | 1 << (TERM - 1) | 1 << (CHLD - 1);
	static struct { unsigned int signal; char rest[124]; } info;
	static struct { int fd; short events, revents; } wait[2];
	static struct address local = { 2, 0, 0x0100007f, { 0 } };
	static int one = 1, pair[2];
	char name[64];
	long worker, signals, port = number((char *)stack[2]);

	if (stack[0] < 2)
		call(__NR_exit_group, 2, 0, 0, 0);
	local.port = port >> 8 | (port & 255) << 8;
	call(__NR_rt_sigprocmask, 0, (long)&mask, 0, 8);
	signals = call(__NR_signalfd4, -1, (long)&mask, 8, 0);
	if (call(__NR_socketpair, 1, 1, 0, (long)pair) < 0)
		call(__NR_exit_group, 3, 0, 0, 0);
	control[0] = pair[0];
	control[1] = pair[1];
	listener = call(__NR_socket, 2, 1, 0, 0);
	call5(__NR_setsockopt, listener, 1 /* SOL_SOCKET */, 2 /* SO_REUSEADDR */, (long)&one, sizeof(one));
	if (call(__NR_bind, listener, (long)&local, sizeof(local), 0) < 0 || call(__NR_listen, listener, 64, 0, 0) < 0)
		call(__NR_exit_group, 4, 0, 0, 0);
	worker = fork();
	wait[0].fd = signals;
	wait[1].fd = control[1];
	wait[0].events = wait[1].events = 1;
	for (;;) {
		call(__NR_poll, (long)wait, 2, -1, 0);
		if (wait[1].revents & 1) {
			long n = call(__NR_read, control[1], (long)name, sizeof(name), 0), r = attack(name, n);

			call(__NR_write, control[1], (long)&r, sizeof(r), 0);
		}
		if (!(wait[0].revents & 1) || call(__NR_read, signals, (long)&info, sizeof(info), 0) != sizeof(info))
			continue;
		if (info.signal == CHLD)
			while (call(__NR_wait4, -1, 0, 1 /* WNOHANG */, 0) > 0)
				;
		if (info.signal == HUP) {
			long old = worker;

			worker = fork();
			call(__NR_kill, old, 9, 0, 0);
		}
		if (info.signal == TERM) {
			call(__NR_kill, worker, 9, 0, 0);
			call(__NR_exit_group, 0, 0, 0, 0);
		}
	}
}

/* The kernel leaves the arguments on the stack. */
__asm__(".globl _start\n_start:\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall run\n");
