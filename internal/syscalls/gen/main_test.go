// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"testing"
)

// filler makes a header of the least size that parseNumbers takes, with numbers from 600.
func filler() string {
	var b strings.Builder
	for i := range 300 {
		fmt.Fprintf(&b, "#define __NR_call%d %d\n", i, 600+i)
	}
	return b.String()
}

func TestParseNumbers(t *testing.T) {
	names, err := parseNumbers([]byte("#ifndef _ASM_UNISTD_64_H\n#define _ASM_UNISTD_64_H\n#define __NR_read 0\n" +
		"#define __NR_execve (__X32_SYSCALL_BIT + 520)\n" + filler() + "#endif\n"))
	if err != nil || names[0] != "read" || names[520] != "execve" || len(names) != 302 {
		t.Errorf("parsed %d names: 0 %q, 520 %q, %v", len(names), names[0], names[520], err)
	}
	for _, test := range []struct{ name, text, want string }{
		{"not a table", "#define __NR_read 0\n", "only 1 calls"},
		{"two names", filler() + "#define __NR_a 1\n#define __NR_b 1\n", "1 is both a and b"},
		{"too large", filler() + "#define __NR_a 1024\n", "sets hold 1024"},
		{"a form it does not know", filler() + "#define __NR_a (__NR_b + 1)\n", "understood 300 of 301"},
	} {
		if _, err := parseNumbers([]byte(test.text)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
}

func TestParseVersion(t *testing.T) {
	text := "#define LINUX_VERSION_CODE 1\n#define LINUX_VERSION_MAJOR 7\n#define LINUX_VERSION_PATCHLEVEL 3\n#define LINUX_VERSION_SUBLEVEL 4\n"
	if got, err := parseVersion([]byte(text)); err != nil || got != "7.3.4" {
		t.Errorf("parseVersion = %q, %v", got, err)
	}
	if got, err := parseVersion([]byte("#define LINUX_VERSION_MAJOR 7\n")); err == nil {
		t.Errorf("a part of a version is %q", got)
	}
}

func TestRunNeedsHeaders(t *testing.T) {
	for _, dir := range []string{"", t.TempDir()} {
		if err := run(dir, t.TempDir()); err == nil {
			t.Errorf("run(%q) succeeds", dir)
		}
	}
}
