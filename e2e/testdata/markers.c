// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// A rare call each at set times: MARKS is a list of {call, second}. Between them it sleeps and makes no other call than
// clock_nanosleep. Built without a C library, so that what it needs is known to the call.

#include <asm/unistd.h>

struct mark {
	long nr, at;
};

struct timespec {
	long s, ns;
};

static long call(long nr, long a, long b, long c, long d)
{
	register long r10 __asm__("r10") = d;
	long ret;

	__asm__ volatile("syscall" : "=a"(ret) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
	return ret;
}

void _start(void)
{
	static const struct mark marks[] = { MARKS };
	long before = 0;

	for (unsigned i = 0; i < sizeof(marks) / sizeof(marks[0]); i++) {
		struct timespec left = { marks[i].at - before, 0 };

		/* Interrupted (by a profiler, a freezer) it sleeps on for what is left. */
		while (left.s > 0 && call(__NR_clock_nanosleep, 1 /* CLOCK_MONOTONIC */, 0, (long)&left, (long)&left))
			;
		before = marks[i].at;
		call(marks[i].nr, 0, 0, 0, 0);
	}
	call(__NR_exit_group, 0, 0, 0, 0);
	__builtin_unreachable();
}
