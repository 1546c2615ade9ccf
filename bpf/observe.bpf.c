// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * Records which calls the tasks of observed containers make.
 *
 * raw_tp/sys_enter is the one hook that sees every call of every ABI after seccomp has let it through; attaching anything
 * to it makes every task of the host take the slow path into the kernel (58 ns a call where it was measured), so user space
 * attaches it only while some container is learning. sys_exit shows what sys_enter cannot: calls that seccomp answered,
 * and that an accept succeeded.
 *
 * Steady state of sys_enter: the container by its cgroup in an open-addressed table, the task's state, "bit already set".
 */
#include "state.h"
#include "origin.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/*
 * Adds n to a call's count, and the epoch to the epochs it was seen in. Returns 0 when there is no room. What memory the
 * call comes from is looked at for the first of its cell only: what it costs would be felt otherwise, and who makes a call
 * that the cell makes anyway teaches nothing by it.
 */
static __noinline int record(struct task_state *t, struct container *c, __u32 nr, __u32 n, __u64 ip)
{
	struct call_key key = {};
	struct call_seen fresh = {};
	struct call_seen *s;

	if (!t || !c)
		return 0;
	if (!t->cell)
		t->cell = cell_of(t, c);
	if (!t->cell)
		return 0;
	key.cell = t->cell;
	key.nr = nr;
	key.abi = t->abi;
	s = bpf_map_lookup_elem(&calls, &key);
	if (!s) {
		fresh.first = t->epoch;
		fresh.when = (__u64)t->epoch << 32 | 1;
		fresh.uid = c->uid;
		if (!bpf_map_update_elem(&calls, &key, &fresh, BPF_NOEXIST))
			__sync_fetch_and_add(&c->recorded, 1);
		s = bpf_map_lookup_elem(&calls, &key);
		if (!s) {
			lose(c, LOSS_CALL);
			return 0;
		}
	}
	if (!s->origin) /* or not known yet */
		take_origin(s, c, ip);
	__sync_fetch_and_add(&s->count, n);
	for (int i = 0; i < 8; i++) {
		__u64 old = s->when, now;
		__u32 last = old >> 32, ago = t->epoch - last;

		if (t->epoch == last)
			return 1;
		if (t->epoch < last) { /* another task was faster into a newer epoch */
			ago = last - t->epoch;
			now = ago < 32 ? old | 1ull << ago : old;
		} else {
			now = (__u64)t->epoch << 32 | 1 | (ago < 32 ? (old << ago & 0xffffffff) : 0);
		}
		if (now == old || __sync_val_compare_and_swap(&s->when, old, now) == old)
			return 1;
	}
	return 1;
}

/* A new epoch, stage or ABI for this task. */
static __noinline int roll(struct task_state *t, struct container *c, __u32 abi)
{
	if (!t || !c)
		return 0;
	flush_all(t, c);
	if (t->abi != abi)
		end_burst(t, c);
	flush_all(t, c);
	for (int i = 0; i < WORDS; i++)
		t->seen[i] = 0;
	t->abi = abi;
	t->exact = EXACT;
	t->epoch = c->epoch;
	t->stage = c->stage;
	return 0;
}

static __noinline int record_arg(struct task_state *t, struct container *c, __u32 nr, __u32 index, __u64 value)
{
	struct arg_key key = {};
	struct arg_seen fresh = {};
	__u64 known = (value + 1) * 0x9E3779B97F4A7C15ull ^ nr ^ (__u64)t->cell << 32;
	__u32 at = known >> 61;

	if (!c || t->args[at & 7] == known)
		return 0;
	key.value = value;
	key.cell = t->cell;
	key.nr = nr;
	key.abi = t->abi;
	key.index = index;
	if (!bpf_map_lookup_elem(&args, &key)) {
		fresh.uid = c->uid;
		fresh.first = t->epoch;
		if (c->args >= MAX_ARGS) {
			lose(c, LOSS_ARG);
			return 0;
		}
		if (!bpf_map_update_elem(&args, &key, &fresh, BPF_NOEXIST)) {
			__sync_fetch_and_add(&c->args, 1);
		} else if (!bpf_map_lookup_elem(&args, &key)) {
			lose(c, LOSS_ARG);
			return 0;
		}
	}
	t->args[at & 7] = known;
	return 0;
}

/* The lane of a task that was there before its container was added: does it descend from the container's init? */
static __always_inline __u32 late_lane(struct task_struct *task, struct container *c)
{
	struct task_struct *p = task->group_leader;

	for (int i = 0; i < 32; i++) {
		if (!p || p->tgid <= 1)
			return LANE_EXEC;
		if ((__u32)p->tgid == c->init)
			return LANE_SERVICE;
		p = p->real_parent;
	}
	return LANE_EXEC;
}

/*
 * The first call of a task that no fork or exec has announced. A filter marks, exactly and for every runtime, where the
 * container's own calls begin: before it, the runtime's calls are of no interest.
 */
static __noinline int admit(struct task_struct *task, struct container *c)
{
	struct task_state *t;

	if (!c)
		return 0;
	if (!(c->flags & FLAG_LATE) && !task->seccomp.filter_count.counter)
		return 0;
	t = bpf_task_storage_get(&tasks, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!t) {
		lose(c, LOSS_TASK);
		return 0;
	}
	*t = (struct task_state){};
	t->uid = c->uid;
	t->epoch = c->epoch - 1;
	if (c->flags & FLAG_LATE) {
		struct task_struct *parent = task->group_leader->real_parent;
		struct mm_struct *mm = task->mm, *above = parent->mm;

		t->lane = late_lane(task, c);
		take_exe(t, mm ? mm->exe_file : 0);
		if (mm && above && mm->exe_file && above->exe_file)
			t->generation = mm->exe_file->f_inode == above->exe_file->f_inode;
	} else {
		t->lane = LANE_RUNTIME;
	}
	return 1;
}

SEC("tp_btf/sys_enter")
int BPF_PROG(sys_enter, struct pt_regs *regs, long id)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct container *c = find(task);
	struct task_state *t;
	__u32 abi, nr, what;
	__u64 bit;

	if (!c || !(c->flags & FLAG_LEARN))
		return 0;
	if (c->flags & FLAG_INJECT && task->ptrace)
		return 0;
	t = bpf_task_storage_get(&tasks, task, 0, 0);
	if (!t || t->uid != c->uid) {
		if (!admit(task, c))
			return 0;
		t = bpf_task_storage_get(&tasks, task, 0, 0);
		if (!t)
			return 0;
	}
	abi = abi_of(task, id);
	nr = (__u32)id;
	if (abi == ABI_X32)
		nr &= ~0x40000000u;
	t->in_call = 1;
	t->nr = nr;
	if (t->epoch != c->epoch || t->abi != abi)
		roll(t, c, abi);
	if (abi == ABI_NONE || nr >= MAX_NRS) {
		__sync_fetch_and_add(&c->unknown, 1);
		return 0;
	}
	if (nr >= FAST_NRS || abi >= ABIS) {
		record(t, c, nr, 1, ip_of(regs));
		return 0;
	}

	bit = 1ull << (nr & 63);
	if (!(t->seen[nr / 64 & (WORDS - 1)] & bit)) {
		if (record(t, c, nr, 1, ip_of(regs)))
			t->seen[nr / 64 & (WORDS - 1)] |= bit;
	} else if (t->exact) {
		t->exact--;
		record(t, c, nr, 1, ip_of(regs));
	} else if (!(++t->tick & (SAMPLE - 1))) {
		record(t, c, nr, SAMPLE, ip_of(regs));
	}
	if (!(t->burst[nr / 64 & (WORDS - 1)] & bit)) {
		t->burst[nr / 64 & (WORDS - 1)] |= bit;
		t->hash ^= (nr + 1) * 0x9E3779B97F4A7C15ull;
	}

	what = props[(abi * FAST_NRS + nr) & (PROPS - 1)];
	if (!what)
		return 0;
	if (what >= PROP_ARG) {
		__u32 spec = what / PROP_ARG & 31;
		__u32 index = arg_specs[spec].index;

		record_arg(t, c, nr, index, arg_of(regs, abi, index) & arg_specs[spec].mask);
	}
	if (what & PROP_FUTEX) {
		__u32 op = arg_of(regs, abi, 1) & 0x7f; /* without PRIVATE and CLOCK_REALTIME */

		if (op != 0 && op != 6 && op != 9 && op != 11 && op != 13)
			return 0;
	} else if (!(what & PROP_WAIT)) {
		return 0;
	}
	end_burst(t, c);
	if (t->birth) {
		change_cell(t, c);
		t->birth = 0;
		t->exact = EXACT;
	}
	return 0;
}

static __always_inline void tell(struct task_struct *task, struct pt_regs *regs, struct container *c, struct denied_key *key)
{
	struct denied fresh = { .first = c->epoch, .last = c->epoch };
	struct denied *d = bpf_map_lookup_elem(&denials, key);
	struct denial *event;
	__u64 count;

	if (!d) {
		bpf_map_update_elem(&denials, key, &fresh, BPF_NOEXIST);
		d = bpf_map_lookup_elem(&denials, key);
		if (!d) {
			lose(c, LOSS_DENIED);
			return;
		}
	}
	count = __sync_fetch_and_add(&d->count, 1) + 1;
	d->last = c->epoch;
	if (count & (count - 1)) /* tell at 1, 2, 4, 8 …: a flood makes counters, not events */
		return;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		lose(c, LOSS_EVENT);
		return;
	}
	event->ns = bpf_ktime_get_boot_ns();
	event->count = count;
	for (__u32 i = 0; i < 6; i++)
		event->args[i] = arg_of(regs, key->abi, i);
	event->uid = c->uid;
	event->pid = task->tgid;
	event->tid = task->pid;
	event->error = key->error;
	event->nr = key->nr;
	event->abi = key->abi;
	event->lane = key->lane;
	event->kind = EVENT_DENIED;
	bpf_get_current_comm(event->comm, sizeof(event->comm));
	bpf_ringbuf_submit(event, 0);
}

/* Did the container's filter let the call through, so that the errno is the kernel's own? */
static __always_inline int let_through(struct pt_regs *regs, struct container *c, __u32 abi, __u32 nr)
{
	struct allowed_key which = { .uid = c->uid, .abi = abi };
	struct check_key call = { .uid = c->uid, .nr = nr, .abi = abi };
	struct allowed *allowed = bpf_map_lookup_elem(&permitted, &which);
	struct check *check;
	__u32 word = nr / 64;
	__u64 arg;

	if (!allowed)
		return 0;
	/* clang drops a mask that it knows to change nothing; the verifier of Linux 6.1 does not know: 32-bit copies lose bounds */
	barrier_var(word);
	word &= MAX_NRS / 64 - 1;
	if (allowed->calls[word] >> (nr & 63) & 1)
		return 1;
	if (!(allowed->checked[word] >> (nr & 63) & 1))
		return 0;
	check = bpf_map_lookup_elem(&checks, &call);
	if (!check || !check->count)
		return 1; /* it cannot be told, and nothing is said that may be wrong */
	arg = arg_of(regs, abi, check->index);
	for (__u32 i = 0; i < MAX_CHECKS && i < check->count; i++)
		if ((arg & check->masks[i]) == check->values[i])
			return 1;
	return 0;
}

/* The number of the call that is returning; it is -1 after rt_sigreturn. */
static __always_inline __u32 returning(struct pt_regs *regs)
{
#ifdef __TARGET_ARCH_x86
	return regs->orig_ax;
#else
	return regs->syscallno;
#endif
}

SEC("tp_btf/sys_exit")
int BPF_PROG(sys_exit, struct pt_regs *regs, long ret)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct container *c = find(task);
	struct denied_key key = {};
	struct task_state *t;
	__u32 nr, lane = LANE_RUNTIME;

	if (!c)
		return 0;
	if (c->flags & FLAG_INJECT && task->ptrace)
		return 0;
	t = bpf_task_storage_get(&tasks, task, 0, 0);
	if (c->flags & FLAG_LEARN) {
		if (!t || t->uid != c->uid)
			return 0;
		if (t->in_call) {
			t->in_call = 0;
			if (c->stage == STAGE_BOOT && t->lane == LANE_SERVICE && ret >= 0 && t->nr < FAST_NRS &&
			    props[(t->abi * FAST_NRS + t->nr) & (PROPS - 1)] & PROP_ACCEPT &&
			    __sync_val_compare_and_swap(&c->stage, STAGE_BOOT, STAGE_RUN) == STAGE_BOOT)
				mark(c, CAUSE_READY, STAGE_RUN, 0);
			return 0;
		}
		/* No sys_enter: seccomp answered this call. */
		if (ret >= 0 || c->flags & FLAG_HELD)
			return 0;
	} else if (!(c->flags & FLAG_WATCH)) {
		return 0;
	} else if (ret != -EPERM && ret != -ENOSYS && ret != -EACCES) {
		return 0;
	} else if (!task->seccomp.filter_count.counter) {
		return 0; /* the runtime, before it has loaded the filter */
	}
	if (t && t->uid == c->uid)
		lane = t->lane;
	nr = returning(regs);
	key.abi = abi_of(task, nr);
	if (key.abi == ABI_X32)
		nr &= ~0x40000000u;
	if (nr >= MAX_NRS) {
		if ((nr | 0x40000000u) == (__u32)-1)
			return 0;
		__sync_fetch_and_add(&c->unknown, 1);
		return 0;
	}
	if (c->flags & FLAG_WATCH && let_through(regs, c, key.abi, nr))
		return 0;
	key.uid = c->uid;
	key.nr = nr;
	key.lane = lane;
	key.error = -ret;
	tell(task, regs, c, &key);
	return 0;
}

/*
 * A process from outside has executed its first program in a supervised container. Where the filter was attached, it does
 * not have it: nobody forked it who did.
 */
static __noinline int arrived(struct task_struct *task, struct container *c)
{
	struct denial *event;

	if (!c)
		return 0;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		lose(c, LOSS_EVENT);
		return 0;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->ns = bpf_ktime_get_boot_ns();
	event->uid = c->uid;
	event->pid = task->tgid;
	event->tid = task->pid;
	event->kind = EVENT_ARRIVED;
	bpf_get_current_comm(event->comm, sizeof(event->comm));
	bpf_ringbuf_submit(event, 0);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(process_exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	struct container *c = find(task);
	struct role_key role = {};
	struct role name = {};
	struct task_state *t;

	if (!c)
		return 0;
	t = state_of(task, c);
	if (!t || t->lane == LANE_RUNTIME) {
		__u32 lane;

		/* runc executes itself ("runc init") next to the container before it enters it. */
		if (c->mnt_ns && !(c->flags & FLAG_LATE) && task->nsproxy->mnt_ns->ns.inum != c->mnt_ns)
			return 0;
		if (c->flags & FLAG_LATE && !t)
			lane = late_lane(task, c);
		else if (!c->init && !__sync_val_compare_and_swap(&c->init, 0, task->tgid))
			lane = LANE_SERVICE;
		else
			lane = (__u32)task->tgid == c->init ? LANE_SERVICE : LANE_EXEC;
		if (lane == LANE_SERVICE && (__u32)task->tgid == c->init && !c->root_dev)
			c->root_dev = root_dev_of(task);
		if (t) {
			end_burst(t, c);
			change_cell(t, c);
		} else {
			t = bpf_task_storage_get(&tasks, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
			if (!t) {
				lose(c, LOSS_TASK);
				return 0;
			}
			*t = (struct task_state){};
			t->uid = c->uid;
			t->epoch = c->epoch - 1;
			t->in_call = 1; /* in execve */
		}
		t->lane = lane;
		if (lane == LANE_EXEC && c->flags & FLAG_HELD)
			arrived(task, c);
	} else {
		end_burst(t, c);
		change_cell(t, c);
	}
	t->generation = 0;
	t->birth = 1;
	t->born = bpf_ktime_get_boot_ns();
	take_exe(t, bprm->file);
	role.ino = t->ino;
	role.dev = t->dev;
	role.uid = c->uid;
	if (!bpf_map_lookup_elem(&roles, &role)) {
		if (bpf_probe_read_kernel_str(name.path, sizeof(name.path), bprm->interp) < 0 ||
		    bpf_map_update_elem(&roles, &role, &name, BPF_ANY))
			lose(c, LOSS_ROLE);
	}
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(process_fork, struct task_struct *parent, struct task_struct *child)
{
	struct container *c = find(parent);
	struct task_state *t, *n;

	if (!c)
		return 0;
	t = state_of(parent, c);
	if (!t)
		return 0;
	n = bpf_task_storage_get(&tasks, child, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!n) {
		lose(c, LOSS_TASK);
		return 0;
	}
	*n = (struct task_state){};
	n->uid = t->uid;
	n->epoch = c->epoch - 1;
	n->lane = t->lane;
	n->dev = t->dev;
	n->ino = t->ino;
	n->generation = parent->tgid == child->tgid ? t->generation : 1;
	n->birth = 1;
	n->born = bpf_ktime_get_boot_ns();
	n->in_call = 1; /* it returns from its parent's clone */
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(process_exit, struct task_struct *task)
{
	struct container *c = find(task);
	struct task_state *t;

	if (!c)
		return 0;
	t = state_of(task, c);
	if (!t)
		return 0;
	end_burst(t, c);
	flush_all(t, c);
	return 0;
}

/*
 * Signals are rare, and this runs in the sender's context before the handler does: what is held or recorded after the
 * signal is after the mark.
 */
SEC("tp_btf/signal_generate")
int BPF_PROG(signal, int sig, struct kernel_siginfo *info, struct task_struct *task)
{
	struct task_struct *sender = bpf_get_current_task_btf();
	struct container *c = find(task);
	struct task_state *t;

	if (!c)
		return 0;
	if ((__u64)info > 1) {
		int code = BPF_CORE_READ(info, si_code); /* it may be 0 or 1: Linux 6.12 takes it for no pointer */

		if (code != 0 && code != -1 && code != -6) /* SI_USER, SI_QUEUE, SI_TKILL: sent by a process */
			return 0;
	}
	/* What the service sends to itself opens no phase. */
	if (find(sender) == c) {
		t = state_of(sender, c);
		if (t && t->lane == LANE_SERVICE)
			return 0;
	}
	if ((__u32)task->tgid != c->init) {
		/* The service may have been started by a shell or an init: a reload is asked of it, a stop of the init. */
		t = state_of(task, c);
		if (!t || t->lane != LANE_SERVICE)
			return 0;
	} else if ((__u32)sig == c->stop_signal || sig == 15) {
		if (c->stage != STAGE_STOP)
			mark(c, CAUSE_STOP, STAGE_STOP, sig);
		return 0;
	}
	if (sig == 1 || sig == 10 || sig == 12) { /* HUP, USR1, USR2 */
		if (c->stage == STAGE_RUN || c->stage == STAGE_RELOAD)
			mark(c, CAUSE_RELOAD, STAGE_RELOAD, sig);
	}
	return 0;
}

/* A cgroup made below a container's belongs to the container (systemd, or another engine, inside it). */
SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(cgroup_mkdir, struct cgroup *child)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct cgroup *parent = (struct cgroup *)child->self.parent; /* self is the first member */
	struct container *c;
	__u64 key;
	__u32 at, index;

	/* v1 hierarchies number their cgroups by themselves: their ids mean nothing here. */
	if (!parent || child->root != task->cgroups->dfl_cgrp->root)
		return 0;
	c = find_key(BPF_CORE_READ(parent, kn, id));
	if (!c)
		return 0;
	index = ((__u64)c - (__u64)containers) / sizeof(*c);
	key = child->kn->id;
	at = slot_of(key);
	for (int i = 0; i < PROBES; i++) {
		struct slot *s = &slots[(at + i) & (SLOTS - 1)];
		__u64 have = s->key;

		if (have != KEY_FREE && have != KEY_GONE)
			continue;
		if (__sync_val_compare_and_swap(&s->key, have, KEY_BUSY) != have)
			continue;
		s->container = index;
		s->key = key;
		return 0;
	}
	lose(c, LOSS_CHILD);
	return 0;
}
