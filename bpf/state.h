/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The maps and tables, and how a task is matched to a container and a set of calls (a cell).
 *
 * map       key -> value                    written by            read by
 * slots     cgroup id or mnt ns -> index    user space, mkdir     every program
 * containers index -> container             both                  both
 * tasks     task -> task_state              programs              programs
 * cells     who (cell_key) -> cell id       programs              both
 * calls     cell, number -> when, count     programs              both
 * bursts    cell, hash -> set, count        programs              both
 * args      cell, number, value -> first    programs              both
 * roles     executable -> path              exec                  user space
 * marks     container, epoch -> why         programs              user space
 * denials   who, number, errno -> count     sys_exit              user space
 * permitted container, abi -> sets          user space            sys_exit
 * checks    container, number -> arguments  user space            sys_exit
 * events    ring of struct denial           sys_exit              user space
 */
#ifndef WHITTLE_STATE_H
#define WHITTLE_STATE_H

#include "kernel.h"
#include "whittle.h"
#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define EPERM 1
#define EACCES 13
#define ENOSYS 38

/*
 * One open-addressed table without a helper call: matching a task costs about 7 ns this way, 35 ns with a hash map, and
 * every task of the host pays it. It lives in .bss, which user space maps.
 */
struct slot slots[SLOTS];
struct container containers[CONTAINERS];
__u32 mnt_ns_keys; /* how many keys are mount namespaces; 0 saves the second look-up */
__u32 next_cell;

/* Keeps what no map names in the object's type information, from where the Go side is generated. */
const enum container_flag *for_go_flag __attribute__((unused));
const enum prop *for_go_prop __attribute__((unused));
const enum loss *for_go_loss __attribute__((unused));
const enum event *for_go_event __attribute__((unused));
const struct denial *for_go_denial __attribute__((unused));

volatile const __u8 props[PROPS]; /* [abi * FAST_NRS + nr] */
volatile const struct arg_spec arg_specs[ARG_SPECS + 1];

#define HASH(name, k, v, n)                              \
	struct {                                         \
		__uint(type, BPF_MAP_TYPE_HASH);         \
		__uint(map_flags, BPF_F_NO_PREALLOC);    \
		__uint(max_entries, n);                  \
		__type(key, k);                          \
		__type(value, v);                        \
	} name SEC(".maps")

HASH(cells, struct cell_key, __u32, 1 << 17);
HASH(calls, struct call_key, struct call_seen, 1 << 19);
HASH(bursts, struct burst_key, struct burst, 1 << 17);
HASH(args, struct arg_key, struct arg_seen, 1 << 16);
HASH(roles, struct role_key, struct role, 1 << 15);
HASH(marks, struct mark_key, struct mark, 1 << 16);
HASH(denials, struct denied_key, struct denied, 1 << 16);
HASH(permitted, struct allowed_key, struct allowed, CONTAINERS * 2);
HASH(checks, struct check_key, struct check, 1 << 16);

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct task_state);
} tasks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} events SEC(".maps");

static __always_inline void lose(struct container *c, __u32 why)
{
	if (why < LOSSES)
		__sync_fetch_and_add(&c->lost[why], 1);
}

static __always_inline __u32 slot_of(__u64 key)
{
	return (key * 0x9E3779B97F4A7C15ull) >> (64 - SLOT_BITS);
}

static __always_inline struct container *find_key(__u64 key)
{
	__u32 at = slot_of(key);

#pragma clang loop unroll(disable)
	for (int i = 0; i < PROBES; i++) {
		struct slot *s = &slots[(at + i) & (SLOTS - 1)];
		__u64 have = s->key;

		if (have == key)
			return &containers[s->container & (CONTAINERS - 1)];
		if (have == KEY_FREE)
			return 0;
	}
	return 0;
}

static __always_inline struct container *find(struct task_struct *task)
{
	struct container *c = find_key(task->cgroups->dfl_cgrp->kn->id);

	if (!c && mnt_ns_keys) {
		struct nsproxy *ns = task->nsproxy; /* gone in a task that is exiting */

		if (ns)
			c = find_key(KEY_MNT_NS | ns->mnt_ns->ns.inum);
	}
	return c;
}

/*
 * The index of a container is used again by a later one, its uid is not: what a task remembers of an earlier container is
 * recognised by the uid.
 */
static __always_inline struct task_state *state_of(struct task_struct *task, struct container *c)
{
	struct task_state *t = bpf_task_storage_get(&tasks, task, 0, 0);

	return t && t->uid == c->uid ? t : 0;
}

static __always_inline __u32 abi_of(struct task_struct *task, __u64 id)
{
#ifdef __TARGET_ARCH_x86
	if (task->thread_info.status & 2) /* TS_COMPAT: int 0x80 or a 32-bit process */
		return ABI_I386;
	return id & 0x40000000 ? ABI_X32 : ABI_X86_64;
#else
	return task->thread_info.flags & (1 << 22) ? ABI_NONE : ABI_ARM64; /* TIF_32BIT */
#endif
}

static __always_inline __u64 arg_of(struct pt_regs *regs, __u32 abi, __u32 n)
{
#ifdef __TARGET_ARCH_x86
	if (abi == ABI_I386) {
		switch (n) {
		case 0: return (__u32)regs->bx;
		case 1: return (__u32)regs->cx;
		case 2: return (__u32)regs->dx;
		case 3: return (__u32)regs->si;
		case 4: return (__u32)regs->di;
		}
		return (__u32)regs->bp;
	}
	switch (n) {
	case 0: return regs->di;
	case 1: return regs->si;
	case 2: return regs->dx;
	case 3: return regs->r10;
	case 4: return regs->r8;
	}
	return regs->r9;
#else
	switch (n) {
	case 0: return regs->orig_x0;
	case 1: return regs->regs[1];
	case 2: return regs->regs[2];
	case 3: return regs->regs[3];
	case 4: return regs->regs[4];
	}
	return regs->regs[5];
#endif
}

/* A new epoch begins at once, for a reason that user space learns from the map marks. */
static __always_inline void mark(struct container *c, __u32 cause, __u32 stage, __u32 signal)
{
	struct mark m = {
		.ns = bpf_ktime_get_boot_ns(),
		.stage = stage,
		.cause = cause,
		.signal = signal,
	};
	struct mark_key key = { .uid = c->uid };

	/* The stage first: whoever sees the new epoch takes the stage with it. */
	c->stage = stage;
	key.epoch = __sync_fetch_and_add(&c->epoch, 1) + 1;
	if (bpf_map_update_elem(&marks, &key, &m, BPF_ANY))
		lose(c, LOSS_MARK);
}

/* The set of calls that the task's calls go into; 0 when there is no room. */
static __noinline __u32 cell_of(struct task_state *t, struct container *c)
{
	struct cell_key key = {};
	__u32 *have, id;
	long err;

	if (!t || !c)
		return 0;
	key.uid = c->uid;
	key.dev = t->dev;
	key.ino = t->ino;
	key.lane = t->lane;
	key.generation = t->generation;
	key.birth = t->birth;
	have = bpf_map_lookup_elem(&cells, &key);
	if (have)
		return *have;
	id = __sync_fetch_and_add(&next_cell, 1) + 1;
	err = bpf_map_update_elem(&cells, &key, &id, BPF_NOEXIST);
	if (!err)
		return id;
	have = bpf_map_lookup_elem(&cells, &key);
	if (have)
		return *have;
	lose(c, LOSS_CELL);
	return 0;
}

static __always_inline void flush(struct task_state *t, struct container *c, __u32 i)
{
	struct burst_key key = {};
	struct burst *b;

	i &= 3;
	if (!t->pending[i])
		return;
	key.hash = t->recent[i];
	key.cell = t->cell;
	key.abi = t->abi;
	key.stage = t->stage;
	b = bpf_map_lookup_elem(&bursts, &key);
	if (b) {
		__sync_fetch_and_add(&b->count, t->pending[i]);
		b->last = t->epoch;
	} else {
		lose(c, LOSS_BURST);
	}
	t->pending[i] = 0;
}

/* What is cached for one (cell, abi, stage) ends: its counts go into the table, the cache is emptied. */
static __noinline int flush_all(struct task_state *t, struct container *c)
{
	if (!t || !c)
		return 0;
	for (__u32 i = 0; i < 4; i++) {
		flush(t, c, i);
		t->recent[i & 3] = 0;
	}
	return 0;
}

/* A burst that is none of the task's recent ones. */
static __noinline int other_burst(struct task_state *t, struct container *c)
{
	struct burst_key key = {};
	struct burst fresh = {};
	struct burst *b;
	__u32 i;

	if (!t || !c || !t->cell)
		return 0;
	key.hash = t->hash;
	key.cell = t->cell;
	key.abi = t->abi;
	key.stage = t->stage;
	b = bpf_map_lookup_elem(&bursts, &key);
	if (!b) {
		if (c->bursts >= MAX_BURSTS) {
			lose(c, LOSS_BURST);
			return 0;
		}
		for (i = 0; i < WORDS; i++)
			fresh.calls[i] = t->burst[i];
		fresh.uid = c->uid;
		if (!bpf_map_update_elem(&bursts, &key, &fresh, BPF_NOEXIST))
			__sync_fetch_and_add(&c->bursts, 1);
		b = bpf_map_lookup_elem(&bursts, &key);
		if (!b) {
			lose(c, LOSS_BURST);
			return 0;
		}
	}
	/* The first of a kind is counted at once, so that a singleton is never waiting in a cache. */
	__sync_fetch_and_add(&b->count, 1);
	b->last = t->epoch;
	i = t->next++ & 3;
	flush(t, c, i);
	t->recent[i] = t->hash;
	return 0;
}

static __always_inline void end_burst(struct task_state *t, struct container *c)
{
	__u64 hash = t->hash;

	if (!hash)
		return;
	if (t->recent[0] == hash)
		t->pending[0]++;
	else if (t->recent[1] == hash)
		t->pending[1]++;
	else if (t->recent[2] == hash)
		t->pending[2]++;
	else if (t->recent[3] == hash)
		t->pending[3]++;
	else
		other_burst(t, c);
#pragma unroll
	for (int i = 0; i < WORDS; i++)
		t->burst[i] = 0;
	t->hash = 0;
}


/* The task's calls go into another cell from now on. */
static __always_inline void change_cell(struct task_state *t, struct container *c)
{
	flush_all(t, c);
	for (int i = 0; i < WORDS; i++)
		t->seen[i] = 0;
	for (int i = 0; i < 8; i++)
		t->args[i] = 0;
	t->cell = 0;
}

static __always_inline void take_exe(struct task_state *t, struct file *exe)
{
	struct inode *inode = exe ? exe->f_inode : 0;

	t->ino = inode ? inode->i_ino : 0;
	t->dev = inode ? inode->i_sb->s_dev : 0;
}

#endif
