// SPDX-License-Identifier: Apache-2.0

// storm DIR: three threads fork every 3 ms, chains four deep. Each process, 20 ms after its birth, tries mkdir and, from the
// moment DIR/on exists, notes in DIR when it was not refused.
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char on[256], bad[256], probe[256];

static void check(void) {
	struct stat st;
	int after = stat(on, &st) == 0;
	int r = mkdir(probe, 0700);
	if (r == 0) rmdir(probe);
	if (after && !(r < 0 && errno == EXDEV)) close(open(bad, O_CREAT | O_WRONLY, 0600));
}
static void chain(int depth) {
	if (depth < 4) {
		pid_t p = fork();
		if (p == 0) { chain(depth + 1); _exit(0); }
	}
	usleep(20000);
	check();
	while (wait(0) > 0) {}
}
static void *breed(void *arg) {
	(void)arg;
	for (;;) {
		usleep(3000);
		pid_t p = fork();
		if (p == 0) { chain(0); _exit(0); }
		while (waitpid(-1, 0, WNOHANG) > 0) {}
	}
}
int main(int argc, char **argv) {
	if (argc < 2) return 2;
	snprintf(on, sizeof on, "%s/on", argv[1]);
	snprintf(bad, sizeof bad, "%s/bad", argv[1]);
	snprintf(probe, sizeof probe, "%s/probe", argv[1]);
	pthread_t t[3];
	for (int i = 0; i < 3; i++) pthread_create(&t[i], 0, breed, 0);
	printf("ready\n");
	fflush(stdout);
	pause();
	return 0;
}
