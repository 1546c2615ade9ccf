/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The few kernel types that Whittle reads, with only the fields it reads. preserve_access_index lets the loader move each
 * access to where the running kernel has the field (CO-RE), so neither a vmlinux.h nor the kernel's headers are needed.
 */
#ifndef WHITTLE_KERNEL_H
#define WHITTLE_KERNEL_H

#include <linux/types.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct kernfs_node {
	__u64 id;
};

struct cgroup_subsys_state {
	struct cgroup_subsys_state *parent;
};

struct cgroup_root;

struct cgroup {
	struct cgroup_subsys_state self;
	struct kernfs_node *kn;
	struct cgroup_root *root;
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

struct ns_common {
	unsigned int inum;
};

struct mnt_namespace {
	struct ns_common ns;
};

struct nsproxy {
	struct mnt_namespace *mnt_ns;
};

struct super_block {
	unsigned int s_dev;
	unsigned long s_flags;
	unsigned long s_magic;
};

struct inode {
	unsigned int i_nlink;
	unsigned long i_ino;
	struct super_block *i_sb;
};

struct file {
	struct inode *f_inode;
};

typedef struct {
	void *vdso;
} mm_context_t;

struct mm_struct {
	unsigned long start_brk, brk, start_stack;
	struct file *exe_file;
	mm_context_t context;
};

struct anon_vma;

struct vm_area_struct {
	unsigned long vm_start;
	unsigned long vm_end;
	struct mm_struct *vm_mm;
	unsigned long vm_flags;
	struct anon_vma *anon_vma;
	struct file *vm_file;
};

struct vfsmount {
	struct super_block *mnt_sb;
};

struct path {
	struct vfsmount *mnt;
};

struct fs_struct {
	struct path root;
};

struct linux_binprm {
	struct file *file;
	const char *interp;
};

typedef struct {
	int counter;
} atomic_t;

struct seccomp {
	atomic_t filter_count;
};

struct thread_info {
	unsigned long flags;
#ifdef __TARGET_ARCH_x86
	__u32 status;
#endif
};

struct task_struct {
	struct thread_info thread_info;
	unsigned int ptrace;
	int pid;
	int tgid;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct mm_struct *mm;
	struct css_set *cgroups;
	struct fs_struct *fs;
	struct nsproxy *nsproxy;
	struct seccomp seccomp;
};

struct kernel_siginfo {
	int si_code;
};

#ifdef __TARGET_ARCH_x86
struct pt_regs {
	unsigned long bx, cx, dx, si, di, bp, r8, r9, r10, orig_ax, ip;
};
#else
struct pt_regs {
	__u64 regs[31];
	__u64 pc;
	__u64 orig_x0;
	__s32 syscallno;
};
#endif

#pragma clang attribute pop

#endif
