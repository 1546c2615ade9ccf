// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// Makes the system calls that it reads from its standard input (records of abi, nr and six arguments, 64 bits each) and
// writes their results. It runs under the filter that is tested, without a C library, so that it needs only read, write
// and exit_group.

enum { X86_64 = 1, I386 = 2, X32 = 3 };

struct record {
	unsigned long abi, nr, a[6];
};

static struct record records[16384];
static long results[16384];

static long native(unsigned long nr, const unsigned long *a)
{
	register unsigned long r10 __asm__("r10") = a[3];
	register unsigned long r8 __asm__("r8") = a[4];
	register unsigned long r9 __asm__("r9") = a[5];
	long ret;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(nr), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}

static long compat(unsigned long nr, const unsigned long *a)
{
	long ret;

	__asm__ volatile("int $0x80"
			 : "=a"(ret)
			 : "a"(nr), "b"(a[0]), "c"(a[1]), "d"(a[2]), "S"(a[3]), "D"(a[4])
			 : "r8", "r9", "r10", "r11", "memory");
	return (int)ret;
}

static long call3(long nr, long a, long b, long c)
{
	unsigned long args[6] = { a, b, c, 0, 0, 0 };

	return native(nr, args);
}

void _start(void)
{
	unsigned long size = 0, i;
	long n;

	while ((n = call3(0, 0, (long)records + size, sizeof(records) - size)) > 0)
		size += n;
	for (i = 0; i < size / sizeof(records[0]); i++) {
		const struct record *r = &records[i];

		results[i] = r->abi == I386 ? compat(r->nr, r->a) :
			     native(r->abi == X32 ? r->nr | 0x40000000 : r->nr, r->a);
	}
	n = call3(1, 1, (long)results, i * sizeof(results[0]));
	call3(231, n != (long)(i * sizeof(results[0])), 0, 0);
	__builtin_trap();
}
