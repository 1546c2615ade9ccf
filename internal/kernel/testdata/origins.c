// SPDX-License-Identifier: Apache-2.0

// Makes one rare call from each kind of memory that code can lie in, as somebody does who brings code of his own.
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <fcntl.h>
#include <unistd.h>

#define PAGE 4096UL

/* mov eax, nr; syscall; ret */
static void code(unsigned char *at, int nr)
{
	unsigned char text[] = { 0xb8, nr, nr >> 8, 0, 0, 0x0f, 0x05, 0xc3 };

	memcpy(at, text, sizeof(text));
}

static void run(void *at) { ((long (*)(long, long, long))at)(-1, -1, -1); }

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static unsigned char *map(int flags, int fd)
{
	void *at = mmap(0, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, flags, fd, 0);

	if (at == MAP_FAILED)
		die("mmap");
	return at;
}

static void from(unsigned char *at, int nr)
{
	code(at, nr);
	run(at);
}

/* Memory that was there and gets to be executable. */
static void made(unsigned char *at, int nr)
{
	if (mprotect((void *)((unsigned long)at & -PAGE), 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC))
		die("mprotect");
	from(at, nr);
}

/* A function of the program itself, on pages of its own. */
__attribute__((aligned(8192), noinline)) long patched(void)
{
	asm volatile(".skip 8192, 0x90");
	return 0;
}

/* What lies in the file at path, mapped without ever being writable. */
static void file(const char *path, int nr, int gone)
{
	unsigned char text[16];
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0700);
	void *at;

	code(text, nr);
	if (fd < 0 || write(fd, text, sizeof(text)) != sizeof(text))
		die(path);
	if (gone)
		unlink(path);
	at = mmap(0, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
	if (at == MAP_FAILED)
		die("mmap of a file");
	run(at);
	unlink(path);
}

int main(int argc, char **argv)
{
	unsigned char stack[2 * PAGE];
	char path[256];
	int fd = memfd_create("x", 0);

	if (argc < 3 || fd < 0 || ftruncate(fd, PAGE))
		die("arguments");
	syscall(SYS_getsid, -1); /* libc */
	from(map(MAP_PRIVATE | MAP_ANONYMOUS, -1), SYS_mincore);
	made((unsigned char *)sbrk(4 * PAGE) + PAGE, SYS_getpriority);
	made(stack, SYS_sched_getparam);
	from(map(MAP_SHARED, fd), SYS_getpgid);
	from(map(MAP_SHARED | MAP_ANONYMOUS, -1), SYS_sched_getscheduler);
	/* Text that was written to, and is no longer writable. */
	if (mprotect((void *)patched, 2 * PAGE, PROT_READ | PROT_WRITE))
		die("mprotect");
	code((unsigned char *)patched, SYS_sched_rr_get_interval);
	if (mprotect((void *)patched, 2 * PAGE, PROT_READ | PROT_EXEC))
		die("mprotect");
	run((void *)patched);
	snprintf(path, sizeof(path), "%s/whole", argv[1]);
	file(path, SYS_sched_get_priority_max, 0);
	snprintf(path, sizeof(path), "%s/gone", argv[1]);
	file(path, SYS_sched_get_priority_min, 1);
	snprintf(path, sizeof(path), "%s/whittle-test-%d", argv[2], getpid());
	file(path, SYS_getresgid, 0);
	/* First from a file, then from elsewhere: who makes it anyway teaches nothing. */
	from(map(MAP_PRIVATE | MAP_ANONYMOUS, -1), SYS_getsid);
	return 0;
}
