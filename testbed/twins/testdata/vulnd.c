// SPDX-License-Identifier: Apache-2.0
//
// vulnd is a small HTTP server with two bugs, to be attacked in tests and nowhere else: it must not be put on a network.
//
//   GET  /            a greeting                  GET  /time        the time, with its zone
//   GET  /file        a file, by sendfile         GET  /rare        what nothing else calls: random bytes, memfd, statfs
//   POST /note        keeps a note, its number    GET  /note?N      the note
//   POST /session     a session, its number       GET  /session?N   greets its user
//   DELETE /session?N ends it                     GET  /digest?N    counts bytes of N pages: work without system calls
//
// Bug 1, a stack overflow: the header X-Trace is decoded (%xx) into a buffer of 64 bytes, however long it is.
// Bug 2, a use after free: a session that was ended can still be greeted, through a function pointer in what is by then
// somebody else's memory: that of a note of the same size.
// Either can be turned into a call of maintenance(), which nothing calls. It makes a shell of the process, with system calls that
// the service makes anyway, but for execve.
//
// One process, one thread, one event loop: which memory comes after which is the same every time.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define MOST 64         // notes, and sessions
#define CONNS 512       // at once
#define ROOM (64 << 10) // for a request
#define DRAIN 100       // ms without a request, after which a server that was told to stop ends

struct conn {
	int fd; // 0: none
	size_t have;
	char in[ROOM + 1];
};

struct session {
	void (*greet)(struct conn *, struct session *);
	char user[232];
};

static struct conn conns[CONNS]; // not on the heap, where notes and sessions are
static struct { char *data; size_t size; } notes[MOST];
static struct session *sessions[MOST];
static unsigned noted, opened;
static int serving = -1; // the connection that is answered
static volatile sig_atomic_t stopping;

// maintenance is not reachable from any URL.
void __attribute__((noinline, used)) maintenance(void)
{
	static char *const argv[] = {"sh", NULL}, *const envp[] = {"PATH=/usr/bin:/bin", NULL};

	fcntl(serving, F_SETFL, 0);
	close(0);
	fcntl(serving, F_DUPFD, 0);
	close(1);
	fcntl(serving, F_DUPFD, 1);
	execve("/bin/sh", argv, envp);
}

static int send_all(int fd, const char *data, size_t size, int more)
{
	while (size > 0) {
		ssize_t n = send(fd, data, size, MSG_NOSIGNAL | more);
		if (n < 0 && errno == EAGAIN) { // the buffer of the socket is larger than most answers
			usleep(1000);
			continue;
		}
		if (n <= 0)
			return -1;
		data += n;
		size -= n;
	}
	return 0;
}

static void answer(struct conn *c, const char *status, const char *data, size_t size)
{
	char head[256];
	int n = snprintf(head, sizeof head, "HTTP/1.1 %s\r\nContent-Length: %zu\r\n%s\r\n", status, size,
		stopping ? "Connection: close\r\n" : "");

	if (send_all(c->fd, head, n, size ? MSG_MORE : 0) == 0) // one packet: else the second waits for an acknowledgement
		send_all(c->fd, data, size, 0);
}

static void __attribute__((format(printf, 2, 3))) say(struct conn *c, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	int n = vsnprintf(text, sizeof text, format, args);
	va_end(args);
	answer(c, "200 OK", text, n < (int)sizeof text ? n : (int)sizeof text - 1);
}

static void refuse(struct conn *c, const char *status) { answer(c, status, status, strlen(status)); }

static int hex(int ch)
{
	if (ch >= '0' && ch <= '9')
		return ch - '0';
	ch |= 0x20;
	return ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : 0;
}

// trace takes the id of a request from its header, to give it back. Bug 1: nothing looks at how long the id is.
static size_t __attribute__((noinline)) trace(char *to, const char *value, size_t size)
{
	char id[64];
	size_t n = 0;

	for (size_t i = 0; i < size; i++) {
		if (value[i] == '%' && i + 2 < size) {
			id[n++] = hex(value[i + 1]) << 4 | hex(value[i + 2]);
			i += 2;
		} else {
			id[n++] = value[i];
		}
	}
	if (n <= sizeof id)
		memcpy(to, id, n);
	return n;
}

static void greet(struct conn *c, struct session *s) { say(c, "hello %.200s\n", s->user); }

static void session(struct conn *c, const char *method, unsigned n, const char *body, size_t size)
{
	if (strcmp(method, "POST") == 0) {
		n = opened % MOST;
		if (size >= sizeof sessions[n]->user)
			return refuse(c, "413 Too Large");
		struct session *s = calloc(1, sizeof *s);
		if (!s)
			return refuse(c, "500 No Memory");
		s->greet = greet;
		memcpy(s->user, body, size);
		sessions[n] = s;
		opened++;
		return say(c, "%u\n", n);
	}
	if (n >= MOST || !sessions[n])
		return refuse(c, "404 Not Found");
	if (strcmp(method, "DELETE") == 0) {
		free(sessions[n]); // bug 2: the table still has it
		return say(c, "bye\n");
	}
	sessions[n]->greet(c, sessions[n]);
}

static void note(struct conn *c, const char *method, unsigned n, const char *body, size_t size)
{
	if (strcmp(method, "POST") == 0) {
		n = noted++ % MOST;
		free(notes[n].data);
		notes[n].data = malloc(size ? size : 1);
		if (!notes[n].data)
			return refuse(c, "500 No Memory");
		notes[n].size = size;
		memcpy(notes[n].data, body, size);
		return say(c, "%u\n", n);
	}
	if (n >= MOST || !notes[n].data)
		return refuse(c, "404 Not Found");
	answer(c, "200 OK", notes[n].data, notes[n].size);
}

static void file(struct conn *c)
{
	struct stat st;
	char head[128];
	off_t at = 0;
	int fd = open("/etc/services", O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) < 0) {
		refuse(c, "404 Not Found");
	} else {
		int n = snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: %lld\r\n%s\r\n", (long long)st.st_size,
			stopping ? "Connection: close\r\n" : "");
		if (send_all(c->fd, head, n, MSG_MORE) == 0)
			while (at < st.st_size && (sendfile(c->fd, fd, &at, st.st_size - at) > 0 || errno == EAGAIN))
				;
	}
	if (fd >= 0)
		close(fd);
}

static void rare(struct conn *c)
{
	unsigned char bytes[16];
	struct statfs fs;
	int fd = memfd_create("rare", MFD_CLOEXEC);

	if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes || fd < 0 || ftruncate(fd, sizeof bytes) < 0 ||
	    pwrite(fd, bytes, sizeof bytes, 0) != sizeof bytes || statfs("/", &fs) < 0)
		refuse(c, "500 Not Possible");
	else
		say(c, "rare %02x%02x, blocks of %ld\n", bytes[0], bytes[1], (long)fs.f_bsize);
	if (fd >= 0)
		close(fd);
}

static void now(struct conn *c)
{
	char text[64];
	struct tm tm;
	time_t t = time(NULL);

	localtime_r(&t, &tm);
	strftime(text, sizeof text, "%F %T %Z", &tm);
	say(c, "time %s\n", text);
}

// digest is where a sanitizer's price shows: every byte is looked at, and nothing waits for what came before.
static void digest(struct conn *c, unsigned pages)
{
	static unsigned char page[4096];
	static unsigned counts[256];

	for (unsigned p = 0; p < pages && p < 1000; p++)
		for (size_t i = 0; i < sizeof page; i++) {
			page[i] = page[sizeof page - 1 - i] + (unsigned char)i;
			counts[page[i]]++;
		}
	say(c, "digest %08x\n", counts[0]);
}

static void route(struct conn *c, const char *method, const char *path, unsigned n, const char *body, size_t size)
{
	if (strcmp(path, "/") == 0)
		say(c, "vulnd\n");
	else if (strcmp(path, "/time") == 0)
		now(c);
	else if (strcmp(path, "/file") == 0)
		file(c);
	else if (strcmp(path, "/rare") == 0)
		rare(c);
	else if (strcmp(path, "/digest") == 0)
		digest(c, n);
	else if (strcmp(path, "/note") == 0)
		note(c, method, n, body, size);
	else if (strcmp(path, "/session") == 0)
		session(c, method, n, body, size);
	else
		refuse(c, "404 Not Found");
}

// request answers the first one in the buffer; 0 when it is not whole yet, -1 when it is none.
static int request(struct conn *c)
{
	char method[8], path[64], id[64];
	unsigned n = 0;
	size_t size = 0;
	char *end = memmem(c->in, c->have, "\r\n\r\n", 4);

	if (!end)
		return c->have < ROOM ? 0 : -1;
	*end = 0; // the last header has no line end now
	if (sscanf(c->in, "%7s %63[^ ?\r\n]?%u", method, path, &n) < 2)
		return -1;
	char *tracing = NULL, *body = end + 4;
	for (char *line = strstr(c->in, "\r\n"); line; line = strstr(line + 2, "\r\n")) {
		if (strncasecmp(line + 2, "Content-Length:", 15) == 0)
			size = strtoul(line + 17, NULL, 10);
		if (strncasecmp(line + 2, "X-Trace: ", 9) == 0)
			tracing = line + 11;
	}
	if (size > ROOM || body + size > c->in + ROOM)
		return -1;
	if (body + size > c->in + c->have) {
		*end = '\r';
		return 0;
	}
	serving = c->fd;
	if (tracing)
		trace(id, tracing, strcspn(tracing, "\r"));
	route(c, method, path, n, body, size);
	c->have -= body + size - c->in;
	memmove(c->in, body + size, c->have);
	return 1;
}

static void hang_up(struct conn *c)
{
	close(c->fd);
	c->fd = 0;
}

static void readable(struct conn *c)
{
	ssize_t n = recv(c->fd, c->in + c->have, ROOM - c->have, 0);
	int more = n > 0 || (n < 0 && errno == EAGAIN) ? 1 : -1;

	if (n > 0) {
		c->have += n;
		c->in[c->have] = 0;
		while (more > 0 && c->have > 0)
			more = request(c);
	}
	if (more < 0 || (stopping && c->have == 0))
		hang_up(c);
}

static void accept_all(int listener, int epoll)
{
	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0)
			return;
		struct conn *c = conns;
		while (c < conns + CONNS && c->fd)
			c++;
		struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
		if (c == conns + CONNS || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &ev) < 0) {
			close(fd);
			continue;
		}
		c->fd = fd;
		c->have = 0;
	}
}

static void stop(int sig) { stopping = sig; }

int main(int argc, char **argv)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(argc > 1 ? atoi(argv[1]) : 8080),
		.sin_addr.s_addr = htonl(argc > 2 && strcmp(argv[2], "any") == 0 ? INADDR_ANY : INADDR_LOOPBACK)};
	struct sigaction sa = {.sa_handler = stop};
	struct epoll_event events[64] = {{.events = EPOLLIN}};
	int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), epoll = epoll_create1(EPOLL_CLOEXEC);

	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(listener, (struct sockaddr *)&to, sizeof to) < 0 || listen(listener, 512) < 0 ||
	    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, events) < 0) {
		perror("vulnd: listen");
		return 1;
	}
	for (;;) {
		int n = epoll_wait(epoll, events, 64, stopping ? DRAIN : -1);
		if (stopping && listener >= 0) { // who is connected is still answered
			accept_all(listener, epoll);
			close(listener);
			listener = -1;
		} else if (stopping && n == 0) {
			return 0;
		}
		for (int i = 0; i < n; i++) {
			if (events[i].data.ptr)
				readable(events[i].data.ptr);
			else if (listener >= 0)
				accept_all(listener, epoll);
		}
	}
}
