// SPDX-License-Identifier: Apache-2.0

package traffic

// The objects are checked in so that a build needs no clang; internal/kernel/clang.version names the compiler that made
// these too.

//go:generate go tool bpf2go -go-package traffic -target amd64,arm64 -cflags "-O2 -g -Wall -Werror -mcpu=v3" -type plan -type shared_port bpf ../../bpf/traffic.bpf.c -- -I../../bpf -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu
