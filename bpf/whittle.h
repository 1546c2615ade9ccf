/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Everything that the BPF programs share with each other and with Go (bpf2go generates the Go side): sizes, enumerations,
 * map keys and values.
 */
#ifndef WHITTLE_H
#define WHITTLE_H

#include <linux/types.h>

#define FAST_NRS 512	   /* numbers below this have the fast path; those up to MAX_NRS cost a hash look-up each call */
#define MAX_NRS 1024	   /* package syscalls: MaxNr */
#define WORDS (FAST_NRS / 64)
#define SLOT_BITS 16
#define SLOTS (1 << SLOT_BITS)
#define PROBES 16	   /* the longest chain in the table of keys; adding a container fails rather than make it longer */
#define CONTAINERS 16384
#define PATH_LEN 128

/* A key of the table is a cgroup id, or a mount namespace with this bit. */
#define KEY_MNT_NS (1ull << 63)
#define KEY_FREE 0ull
#define KEY_BUSY 1ull	   /* being written */
#define KEY_GONE 2ull	   /* removed; the chain goes on */

enum abi { ABI_NONE, ABI_X86_64, ABI_I386, ABI_X32, ABI_ARM64, ABIS };
enum lane { LANE_NONE, LANE_SERVICE, LANE_EXEC, LANE_RUNTIME };
enum stage { STAGE_BOOT, STAGE_RUN, STAGE_RELOAD, STAGE_STOP };
enum cause { CAUSE_START, CAUSE_TICK, CAUSE_READY, CAUSE_STOP, CAUSE_RELOAD };

/* What a call is, by number: filled in by user space before the programs are loaded. */
enum prop {
	PROP_WAIT = 1,	 /* ends a burst and a birth */
	PROP_FUTEX = 2,	 /* does so when its operation waits */
	PROP_ACCEPT = 4, /* its first success is readiness */
	PROP_ARG = 8,	 /* and above: 1 + index into arg_specs, times PROP_ARG */
};
#define ARG_SPECS 31
#define PROPS (8 * FAST_NRS)

struct arg_spec {
	__u64 mask;
	__u32 index;
	__u32 pad;
};

struct slot {
	__u64 key;
	__u32 container;
	__u32 pad;
};

enum container_flag {
	FLAG_LEARN = 1,	 /* record its calls */
	FLAG_WATCH = 2,	 /* report what its filter denies, by the sets in allowed */
	FLAG_LATE = 4,	 /* was running when it was added */
	FLAG_HELD = 8,	 /* a supervisor answers what its filter holds, and tells what was refused */
	FLAG_INJECT = 16, /* calls of traced tasks are the injector's, and not recorded */
};

/* Why something was not recorded. Each counts the times; none is ever reset while the container is observed. */
enum loss {
	LOSS_TASK,  /* no memory for a task's state */
	LOSS_CELL,  /* no room for another set of calls */
	LOSS_CALL,  /* no room for another call of a set */
	LOSS_BURST, /* no room for another distinct burst */
	LOSS_ARG,   /* no room for another argument value */
	LOSS_ROLE,  /* no room for another executable's name */
	LOSS_MARK,  /* no room for another mark */
	LOSS_DENIED,/* no room for another denied call */
	LOSS_EVENT, /* the ring was full: a denial was counted but not told */
	LOSS_CHILD, /* a cgroup below the container's could not be added */
	LOSSES,
};

/* The memory that the instruction of a call lies in, the later the worse. Package observe has the names. */
enum origin {
	ORIGIN_UNKNOWN,	 /* not looked at: the kernel cannot, or the map of the memory was being changed */
	ORIGIN_FILE,	 /* a file's, as it was mapped */
	ORIGIN_VDSO,	 /* the kernel's own page */
	ORIGIN_WRITABLE, /* a file's, but it may be written or was */
	ORIGIN_FOREIGN,	 /* of a file on a tmpfs, or one that was deleted */
	ORIGIN_MEMFD,	 /* of a file that never had a name, or memory that is shared */
	ORIGIN_HEAP,
	ORIGIN_STACK,
	ORIGIN_ANONYMOUS,
};

#define EXACT 64	/* a task's calls in an epoch are counted one by one up to this number */
#define SAMPLE 64	/* then one in so many, a power of two */
#define MAX_BURSTS 8192	/* distinct ones a container may have */
#define MAX_ARGS 512	/* distinct argument values a container may have */

struct container {
	__u32 uid;	/* never used twice; 0 is none */
	__u32 epoch;
	__u32 stage;
	__u32 flags;
	__u32 init;	/* tgid of the container's init, once known */
	__u32 stop_signal;
	__u64 mnt_ns;
	__u64 recorded;	/* distinct (cell, call) records made */
	__u64 unknown;	/* calls with a number no kernel has */
	__u32 bursts;
	__u32 args;
	__u32 lost[LOSSES];
	__u32 root_dev;	/* of its root file system, once its init has executed a program; 0 is not known */
	__u32 pad[3];
};

struct cell_key {
	__u32 uid;
	__u32 dev;
	__u64 ino;
	__u8 lane;
	__u8 generation;
	__u8 birth;
	__u8 pad[5];
};

struct call_key {
	__u32 cell;
	__u16 nr;
	__u8 abi;
	__u8 pad;
};

struct call_seen {
	__u64 when; /* last epoch << 32 | bit i: seen in the epoch i before the last */
	__u64 count;
	__u32 first;
	__u32 uid;
	__u32 origin; /* enum origin, of who made it first */
	__u32 pad;
};

struct burst_key {
	__u64 hash;
	__u32 cell;
	__u8 abi;
	__u8 stage;
	__u8 pad[2];
};

struct burst {
	__u64 calls[WORDS];
	__u64 count;
	__u32 uid;
	__u32 last;
};

struct arg_key {
	__u64 value;
	__u32 cell;
	__u16 nr;
	__u8 abi;
	__u8 index;
};

struct arg_seen {
	__u32 uid;
	__u32 first;
};

struct role_key {
	__u64 ino;
	__u32 dev;
	__u32 uid;
};

struct role {
	char path[PATH_LEN];
};

struct mark_key {
	__u32 uid;
	__u32 epoch;
};

struct mark {
	__u64 ns;
	__u8 stage;
	__u8 cause;
	__u8 signal;
	__u8 pad[5];
};

struct denied_key {
	__u32 uid;
	__u16 nr;
	__u8 abi;
	__u8 lane;
	__s32 error;
};

struct denied {
	__u64 count;
	__u32 first;
	__u32 last;
};

struct allowed_key {
	__u32 uid;
	__u32 abi;
};

struct allowed {
	__u64 calls[MAX_NRS / 64];   /* let through whatever its arguments */
	__u64 checked[MAX_NRS / 64]; /* let through with some: see check */
};

#define MAX_CHECKS 16

struct check_key {
	__u32 uid;
	__u16 nr;
	__u8 abi;
	__u8 pad;
};

/* A call is let through when one argument, masked, has one of the values. */
struct check {
	__u32 count; /* 0: it is not known which arguments are let through */
	__u32 index;
	__u64 masks[MAX_CHECKS];
	__u64 values[MAX_CHECKS];
};

/* What a struct denial tells: a call that a filter answered, or only who came (uid, pid, comm). */
enum event { EVENT_DENIED, EVENT_ARRIVED };

struct denial {
	__u64 ns;
	__u64 count;
	__u64 args[6];
	__u32 uid;
	__u32 pid;
	__u32 tid;
	__s32 error;
	__u16 nr;
	__u8 abi;
	__u8 lane;
	char comm[16];
	__u32 kind; /* enum event */
};

struct task_state {
	__u32 uid;
	__u32 epoch;
	__u32 cell; /* 0: to be looked up */
	__u32 dev;
	__u64 ino;
	__u8 lane;
	__u8 generation;
	__u8 birth;
	__u8 abi;
	__u8 stage;
	__u8 in_call; /* between sys_enter and sys_exit */
	__u16 nr;
	__u32 exact; /* calls that are still counted one by one in this epoch */
	__u32 tick;
	__u64 seen[WORDS]; /* in this epoch, by this task, in its cell */
	__u64 burst[WORDS];
	__u64 hash; /* of burst */
	__u64 recent[4]; /* hashes of bursts that are in the table, with what has not been added to their counts */
	__u32 pending[4];
	__u32 next;
	__u32 pad;
	__u64 args[8]; /* argument values known to be recorded */
	__u64 born; /* its fork or exec, in ns since boot; 0 when it was not seen */
};

#endif
