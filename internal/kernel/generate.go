// SPDX-License-Identifier: Apache-2.0

package kernel

// The objects are checked in so that a build needs no clang. clang.version names the compiler that made them.

//go:generate sh -c "clang --version | head -1 | sed 's/.*clang version \\([0-9.]*\\).*/\\1/' > clang.version"
//go:generate go tool bpf2go -go-package kernel -target amd64,arm64 -cflags "-O2 -g -Wall -Werror -mcpu=v3" -type denial -type loss -type container_flag -type prop -type event -type origin bpf ../../bpf/observe.bpf.c -- -I../../bpf -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu
