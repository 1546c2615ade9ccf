// SPDX-License-Identifier: Apache-2.0

// block CALL MS: prints the pid when ready, makes one blocking call that ends after MS milliseconds, and prints its result,
// errno and whether it took at least as long and not a second longer. Then it says whether mkdir is refused.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}
static void later(int ms, void (*what)(void)) {
	// A process, not a timer: a signal would be part of what is tested.
	if (fork() == 0) {
		usleep(ms * 1000);
		what();
		_exit(0);
	}
}
static int fds[2];
static pid_t parent;
static void write_it(void) { if (write(fds[1], "x", 1) < 0) _exit(1); }
static void nothing(void) {}
static void raise_usr1(void) { kill(parent, SIGUSR1); }
static void handler(int s) { (void)s; }

int main(int argc, char **argv) {
	if (argc < 3) return 2;
	const char *call = argv[1];
	int ms = atoi(argv[2]);
	struct timespec ts = {ms / 1000, (ms % 1000) * 1000000L}, until;
	struct timeval tv = {ms / 1000, (ms % 1000) * 1000};
	long r = 0;
	sigset_t set, old;
	parent = getpid();
	signal(SIGUSR1, handler);
	if (pipe(fds)) return 2;
	int ep = epoll_create1(0);
	int sk[2];
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sk)) return 2;
	setsockopt(sk[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
	sem_t sem;
	sem_init(&sem, 0, 0);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	printf("ready\n");
	fflush(stdout);
	double began = now();
	errno = 0;
	if (!strcmp(call, "nanosleep")) r = nanosleep(&ts, 0);
	else if (!strcmp(call, "clock_nanosleep")) r = clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, 0);
	else if (!strcmp(call, "poll")) r = poll(0, 0, ms);
	else if (!strcmp(call, "ppoll")) r = ppoll(0, 0, &ts, &old), (void)old;
	else if (!strcmp(call, "select")) r = select(0, 0, 0, 0, &tv);
	else if (!strcmp(call, "pselect")) { sigemptyset(&old); r = pselect(0, 0, 0, 0, &ts, &old); }
	else if (!strcmp(call, "futex")) { int w = 0; r = syscall(SYS_futex, &w, FUTEX_WAIT, 0, &ts, 0, 0); }
	else if (!strcmp(call, "sem_timedwait")) {
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec += ts.tv_sec;
		if ((until.tv_nsec += ts.tv_nsec) >= 1000000000) { until.tv_sec++; until.tv_nsec -= 1000000000; }
		r = sem_timedwait(&sem, &until);
	}
	else if (!strcmp(call, "read")) { char c; later(ms, write_it); r = read(fds[0], &c, 1); }
	else if (!strcmp(call, "wait4")) { int st; later(ms, nothing); r = wait(&st) > 0; }
	else if (!strcmp(call, "pause")) { later(ms, raise_usr1); r = pause(); }
	else if (!strcmp(call, "sigsuspend")) {
		sigprocmask(SIG_BLOCK, &set, &old);
		later(ms, raise_usr1);
		r = sigsuspend(&old);
	}
	else if (!strcmp(call, "epoll_wait")) { struct epoll_event e; r = epoll_wait(ep, &e, 1, ms); }
	else if (!strcmp(call, "epoll_pwait")) { struct epoll_event e; sigemptyset(&old); r = epoll_pwait(ep, &e, 1, ms, &old); }
	else if (!strcmp(call, "sigtimedwait")) { sigprocmask(SIG_BLOCK, &set, 0); r = sigtimedwait(&set, 0, &ts); }
	else if (!strcmp(call, "recv")) { char c; r = recv(sk[0], &c, 1, 0); }
	else if (!strcmp(call, "semop")) {
		int id = semget(IPC_PRIVATE, 1, 0600);
		struct sembuf op = {0, -1, 0};
		r = semtimedop(id, &op, 1, &ts);
		int e = errno; semctl(id, 0, IPC_RMID); errno = e;
	}
	else if (!strcmp(call, "spin")) { while (now() - began < ms); }
	else if (!strcmp(call, "vfork")) {
		pid_t p = vfork();
		if (p == 0) { syscall(SYS_nanosleep, &ts, 0); _exit(0); }
		int st; r = waitpid(p, &st, 0) == p;
	}
	else return 2;
	int e = r < 0 ? errno : 0;
	double took = now() - began;
	errno = 0;
	int m = mkdir("/tmp/whittle-inject-must-not-exist", 0700);
	if (m == 0) rmdir("/tmp/whittle-inject-must-not-exist");
	printf("%ld %d %s %s\n", r, e, took > ms - 2 ? "whole" : "short", m < 0 && errno == EXDEV ? "filtered" : "unfiltered");
	fflush(stdout);
	return 0;
}
