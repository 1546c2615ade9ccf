// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// A Redis module that is an intruder in the server: WHITTLE.ATTACK NAME makes that call in the thread that serves, and says
// what the kernel returned.

#include "calls.h"

typedef struct ctx ctx;
typedef struct string string;

static const char *(*string_of)(const string *, unsigned long *);
static int (*reply)(ctx *, long long);

static int command(ctx *c, string **argv, int argc)
{
	unsigned long n = 0;
	const char *name = argc == 2 ? string_of(argv[1], &n) : "";

	return reply(c, attack(name, n));
}

int RedisModule_OnLoad(ctx *c, string **argv, int argc)
{
	int (*get)(const char *, void *) = *(void **)c; /* the first field of a context is what finds the others */
	int (*name)(ctx *, const char *, int, int);
	int (*create)(ctx *, const char *, int (*)(ctx *, string **, int), const char *, int, int, int);

	if (get("RedisModule_SetModuleAttribs", &name) || get("RedisModule_CreateCommand", &create) ||
	    get("RedisModule_StringPtrLen", &string_of) || get("RedisModule_ReplyWithLongLong", &reply))
		return 1;
	name(c, "intruded", 1, 1);
	return create(c, "whittle.attack", command, "", 0, 0, 0);
}
