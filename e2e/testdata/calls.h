// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// Calls that an intruder makes in a service that he has broken into, by name. Each returns what the kernel did.

#include <asm/unistd.h>

static long call5(long nr, long a, long b, long c, long d, long e)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = 0;
	long ret;

	__asm__ volatile("syscall" : "=a"(ret) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
	return ret;
}

static long call(long nr, long a, long b, long c, long d) { return call5(nr, a, b, c, d, 0); }

struct address {
	unsigned short family, port;
	unsigned int host;
	char zero[8];
};

static int same(const char *a, const char *b, unsigned long n)
{
	while (n && *a && *a == *b)
		a++, b++, n--;
	return n == 0 && *a == 0;
}

/* attack with the call of that name; -1000 when there is none. */
static long attack(const char *name, unsigned long n)
{
	static char attr[128], *none[] = { 0 };
	struct address local = { 2 /* AF_INET */, 0, 0x0100007f, { 0 } };
	long r, fd;

	if (same("execve", name, n)) /* of nothing: where it is allowed it fails with ENOENT and does no harm */
		return call(__NR_execve, (long)"/nothing", (long)none, (long)none, 0);
	if (same("clone", name, n)) {
		r = call(__NR_clone, 17 /* SIGCHLD */, 0, 0, 0);
		if (r == 0)
			call(__NR_exit_group, 0, 0, 0, 0);
		return r > 0 ? 0 : r;
	}
	if (same("socket", name, n)) {
		fd = call(__NR_socket, 2, 1, 0, 0);
		if (fd >= 0)
			call(__NR_close, fd, 0, 0, 0);
		return fd >= 0 ? 0 : fd;
	}
	if (same("bind", name, n)) /* -1 is no socket: EBADF where it is allowed */
		return call(__NR_bind, -1, (long)&local, sizeof(local), 0);
	if (same("listen", name, n))
		return call(__NR_listen, -1, 1, 0, 0);
	if (same("connect", name, n))
		return call(__NR_connect, -1, (long)&local, sizeof(local), 0);
	if (same("setuid", name, n)) /* to nobody, which is who has dropped its privileges anyway */
		return call(__NR_setuid, 65534, 0, 0, 0);
	if (same("unshare", name, n))
		return call(__NR_unshare, 0x10000000 /* CLONE_NEWUSER */, 0, 0, 0);
	if (same("setns", name, n)) /* -1 is no namespace: EBADF where it is allowed */
		return call(__NR_setns, -1, 0, 0, 0);
	if (same("bpf", name, n))
		return call(__NR_bpf, 0, (long)attr, sizeof(attr), 0);
	if (same("ptrace", name, n))
		return call(__NR_ptrace, 0 /* PTRACE_TRACEME */, 0, 0, 0);
	if (same("mount", name, n))
		return call(__NR_mount, (long)"none", (long)"/tmp", (long)"tmpfs", 0);
	return -1000;
}
