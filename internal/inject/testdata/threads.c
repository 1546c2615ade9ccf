// SPDX-License-Identifier: Apache-2.0

// threads diverged: two threads load a filter each, of their own. threads held: a thread calls getppid at each line of input.
// threads vforked MS: the only thread waits for its vfork child for MS milliseconds. Each prints at the end how mkdir fares.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static pthread_barrier_t ready, checked;
static int refused;
static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
static volatile int stop;

static int mkdir_is_refused(void) {
	int r = mkdir("/tmp/whittle-inject-threads", 0700);
	if (r == 0) rmdir("/tmp/whittle-inject-threads");
	return r < 0 && errno == EXDEV;
}
static void *diverge(void *arg) {
	struct sock_filter code[] = {{BPF_LD | BPF_IMM, 0, 0, (unsigned)(long)arg}, {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW}};
	struct sock_fprog p = {2, code};
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &p)) exit(3);
	pthread_barrier_wait(&ready);
	pthread_barrier_wait(&checked);
	pthread_mutex_lock(&mu);
	refused += mkdir_is_refused();
	pthread_mutex_unlock(&mu);
	return 0;
}
int main(int argc, char **argv) {
	char line[64];
	if (argc < 2) return 2;
	setvbuf(stdout, 0, _IOLBF, 0);
	if (!strcmp(argv[1], "diverged")) {
		pthread_t t[2];
		pthread_barrier_init(&ready, 0, 3);
		pthread_barrier_init(&checked, 0, 3);
		for (long i = 0; i < 2; i++) pthread_create(&t[i], 0, diverge, (void *)(i + 7));
		pthread_barrier_wait(&ready);
		printf("ready\n");
		if (!fgets(line, sizeof line, stdin)) return 1;
		pthread_barrier_wait(&checked);
		for (int i = 0; i < 2; i++) pthread_join(t[i], 0);
		printf("%d\n", refused + mkdir_is_refused());
	} else if (!strcmp(argv[1], "held")) {
		printf("ready\n");
		while (fgets(line, sizeof line, stdin)) {
			long r = syscall(SYS_getppid);
			printf("%ld %d\n", r, r < 0 ? errno : 0);
		}
	} else if (!strcmp(argv[1], "vforked") && argc > 2) {
		struct timespec ts = {atoi(argv[2]) / 1000, atoi(argv[2]) % 1000 * 1000000L};
		printf("ready\n");
		pid_t p = vfork();
		if (p == 0) { syscall(SYS_nanosleep, &ts, 0); _exit(0); }
		int r = mkdir_is_refused(); // at once, before the wait
		waitpid(p, 0, 0);
		printf("%d\n", r);
	} else return 2;
	return 0;
}
