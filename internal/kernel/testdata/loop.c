/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prints how many nanoseconds of CPU time one getppid takes, the least of some rounds: the least is what the kernel's path
 * costs, everything above it is this machine's noise.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return ts.tv_sec * 1e9 + ts.tv_nsec;
}

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 9;
	const int calls = 200000;
	double least = 1e18;

	for (int r = 0; r < rounds; r++) {
		double start = now();

		for (int i = 0; i < calls; i++)
			syscall(SYS_getppid);
		double each = (now() - start) / calls;
		if (each < least)
			least = each;
	}
	printf("%.1f\n", least);
	return 0;
}
