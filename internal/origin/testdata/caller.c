// SPDX-License-Identifier: Apache-2.0

// A process that has a system call instruction where its first argument says. It prints the address behind the
// instruction and waits until its input ends. The second argument is a directory or a file, where one is needed.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096UL
#define RX (PROT_READ | PROT_EXEC)
#define RWX (RX | PROT_WRITE)

static const unsigned char code[] = {0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3}; // getpid; ret
static unsigned char data[2 * PAGE] __attribute__((aligned(4096))) = {1};

__attribute__((noinline)) static long own(void) {
	return syscall(39);
}

static void *page_of(const void *p) {
	return (void *)((unsigned long)p & ~(PAGE - 1));
}

static void must(int ok, const char *what) {
	if (!ok) {
		perror(what);
		exit(1);
	}
}

// A page with the code in a file that is opened with these flags.
static int file_with_code(const char *path, int flags) {
	int fd = open(path, flags, 0755);
	must(fd >= 0, path);
	if (flags & O_CREAT) {
		must(ftruncate(fd, PAGE) == 0 && pwrite(fd, code, sizeof code, 0) == sizeof code, "write");
	}
	return fd;
}

static unsigned char *map(int prot, int flags, int fd) {
	unsigned char *p = mmap(NULL, PAGE, prot, flags, fd, 0);
	must(p != MAP_FAILED, "mmap");
	return p;
}

static unsigned char *put(unsigned char *p) {
	must(mprotect(page_of(p), PAGE, RWX) == 0, "mprotect");
	memcpy(p, code, sizeof code);
	return p;
}

static char **arguments; // in the first thread's stack, above all frames

static unsigned char *place(const char *what, const char *path) {
	if (!strcmp(what, "anonymous")) return put(map(RWX, MAP_PRIVATE | MAP_ANONYMOUS, -1));
	if (!strcmp(what, "jit")) { // written first, then made executable and not writable
		unsigned char *p = put(map(RWX, MAP_PRIVATE | MAP_ANONYMOUS, -1));
		must(mprotect(p, PAGE, RX) == 0, "mprotect");
		return p;
	}
	if (!strcmp(what, "shared")) return put(map(RWX, MAP_SHARED | MAP_ANONYMOUS, -1));
	if (!strcmp(what, "heap")) return put(page_of(malloc(64) + 0));
	if (!strcmp(what, "stack")) {
		must(mprotect(page_of(arguments), PAGE, RWX) == 0, "mprotect");
		return page_of(arguments);
	}
	if (!strcmp(what, "data")) return put(data);
	if (!strcmp(what, "memfd")) {
		int fd = memfd_create("libc.so.6", 0);
		must(fd >= 0 && ftruncate(fd, PAGE) == 0 && pwrite(fd, code, sizeof code, 0) > 0, "memfd");
		return map(RX, MAP_PRIVATE, fd);
	}
	if (!strcmp(what, "file")) return map(RX, MAP_PRIVATE, file_with_code(path, O_RDONLY));
	if (!strcmp(what, "dropped")) return map(RX, MAP_PRIVATE, file_with_code(path, O_RDWR | O_CREAT));
	if (!strcmp(what, "writable")) return map(RWX, MAP_PRIVATE, file_with_code(path, O_RDONLY));
	if (!strcmp(what, "writableshared")) return map(RWX, MAP_SHARED, file_with_code(path, O_RDWR));
	if (!strcmp(what, "patched")) { // and made to look as before
		unsigned char *p = put(map(RX, MAP_PRIVATE, file_with_code(path, O_RDONLY)));
		must(mprotect(p, PAGE, RX) == 0, "mprotect");
		return p;
	}
	if (!strcmp(what, "deleted")) {
		unsigned char *p = map(RX, MAP_PRIVATE, file_with_code(path, O_RDONLY));
		must(unlink(path) == 0, "unlink");
		return p;
	}
	if (!strcmp(what, "replaced")) { // another file has its path now
		unsigned char *p = map(RX, MAP_PRIVATE, file_with_code(path, O_RDONLY));
		must(unlink(path) == 0, "unlink");
		close(file_with_code(path, O_RDWR | O_CREAT));
		return p;
	}
	if (!strcmp(what, "noexec")) {
		unsigned char *p = map(RX, MAP_PRIVATE, file_with_code(path, O_RDONLY));
		must(mprotect(p, PAGE, PROT_READ) == 0, "mprotect");
		return p;
	}
	if (!strcmp(what, "own")) return (unsigned char *)own;
	if (!strcmp(what, "libc")) return (unsigned char *)getpid;
	if (!strcmp(what, "vdso")) return (unsigned char *)getauxval(AT_SYSINFO_EHDR);
	if (!strcmp(what, "vdsopatched")) {
		unsigned char *p = (unsigned char *)getauxval(AT_SYSINFO_EHDR);
		unsigned long size = PAGE; // it can only be changed as a whole
		while (mprotect(p, size, RWX) != 0 && size < 8 * PAGE) size += PAGE;
		memcpy(p, code, sizeof code);
		must(mprotect(p, size, RX) == 0, "mprotect");
		return p;
	}
	if (!strcmp(what, "nothing")) {
		unsigned char *p = map(RX, MAP_PRIVATE | MAP_ANONYMOUS, -1);
		must(munmap(p, PAGE) == 0, "munmap");
		return p;
	}
	if (!strcmp(what, "many")) { // mappings that cannot be merged
		unsigned long n = 60000;
		unsigned char *p = mmap(NULL, n * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		must(p != MAP_FAILED, "mmap");
		for (unsigned long i = 0; i < n; i += 2) must(mprotect(p + i * PAGE, PAGE, PROT_NONE) == 0, "mprotect");
		return (unsigned char *)getpid;
	}
	fprintf(stderr, "%s?\n", what);
	exit(2);
}

int main(int argc, char **argv) {
	char c;
	arguments = argv;
	unsigned char *p = place(argv[1], argc > 2 ? argv[2] : NULL);
	printf("%lx\n", (unsigned long)p + 7);
	fflush(stdout);
	while (read(0, &c, 1) > 0) {}
	return own() == 0;
}
