/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What memory a call comes from. bpf_find_vma is the one way to ask for it, since Linux 5.17: on older kernels the loader
 * makes the question of whether it exists a constant, the verifier drops what is behind it, and all origins are unknown.
 */
#ifndef WHITTLE_ORIGIN_H
#define WHITTLE_ORIGIN_H

#include "state.h"

#define VM_WRITE 2
#define VM_GROWSDOWN 0x100
#define TMPFS_MAGIC 0x01021994
#define HUGETLBFS_MAGIC 0x958458f6
#define SB_KERNMOUNT (1 << 22) /* mounted by the kernel for itself: nobody can name a file on it */

const enum origin *for_go_origin __attribute__((unused));

/* The end of the instruction that made the call may be the end of its mapping: look at its beginning. */
static __always_inline __u64 ip_of(struct pt_regs *regs)
{
#ifdef __TARGET_ARCH_x86
	return regs->ip - 2; /* syscall and int 0x80 are two bytes; a sysenter returns into the vDSO */
#else
	return regs->pc - 4;
#endif
}

/*
 * A root file system may be a tmpfs itself; what the container mounts there besides is another. It is that of the init's
 * first program: a task that is inside can change its own root.
 */
static __always_inline __u32 root_dev_of(struct task_struct *task)
{
	struct fs_struct *fs = task->fs;
	struct vfsmount *mnt = fs ? fs->root.mnt : 0;

	return mnt ? mnt->mnt_sb->s_dev : 0;
}

struct sought {
	__u32 root_dev;
	__u32 is; /* enum origin */
};

static __always_inline __u32 origin_of_file(struct vm_area_struct *vma, struct file *file, __u32 root_dev)
{
	struct inode *inode = file->f_inode;
	struct super_block *sb = inode->i_sb;

	if (sb->s_magic == HUGETLBFS_MAGIC || (sb->s_magic == TMPFS_MAGIC && sb->s_flags & SB_KERNMOUNT))
		return ORIGIN_MEMFD;
	if ((sb->s_magic == TMPFS_MAGIC && sb->s_dev != root_dev) || !inode->i_nlink)
		return ORIGIN_FOREIGN;
	/* Pages of its own: somebody made it writable, wrote, and perhaps made it what it was. */
	if (vma->vm_flags & VM_WRITE || vma->anon_vma)
		return ORIGIN_WRITABLE;
	return ORIGIN_FILE;
}

static long classify(struct task_struct *task, struct vm_area_struct *vma, void *data)
{
	struct sought *sought = data;
	struct file *file = vma->vm_file;
	struct mm_struct *mm = vma->vm_mm;
	__u64 start = vma->vm_start, end = vma->vm_end, vdso;
	__u32 is = ORIGIN_ANONYMOUS;

	if (file) {
		is = origin_of_file(vma, file, sought->root_dev);
	} else if (mm) {
		vdso = (__u64)mm->context.vdso;
		if (vdso >= start && vdso < end)
			is = ORIGIN_VDSO;
		else if (start < mm->brk && end > mm->start_brk)
			is = ORIGIN_HEAP;
		else if (vma->vm_flags & VM_GROWSDOWN || (start <= mm->start_stack && end >= mm->start_stack))
			is = ORIGIN_STACK;
	}
	sought->is = is;
	return 0;
}

/* Of several tasks that make a call first at the same time, the worst counts. */
static __always_inline void take_origin(struct call_seen *s, struct container *c, __u64 ip)
{
	struct sought sought = { .root_dev = c->root_dev };
	__u32 was;

	if (!bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_find_vma))
		return;
	bpf_find_vma(bpf_get_current_task_btf(), ip, classify, &sought, 0);
	was = __sync_val_compare_and_swap(&s->origin, ORIGIN_UNKNOWN, sought.is);
	if (was && was < sought.is)
		s->origin = sought.is;
}

#endif
