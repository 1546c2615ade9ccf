// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"bufio"
	"fmt"
	"io"
	"path"
	"strings"
)

// Where AddressSanitizer puts its shadow on x86-64 and arm64 (compiler-rt, asan_mapping.h). One that is linked statically has no
// library to be known by.
var shadows = []string{"7fff8000-", "7fff7000-", "1000000000-"}

// Armed reports whether a twin that serves has its hardening, and else why not: an image that was not built as somebody
// thought, or an interpreter that was told to ignore its environment, would vouch for everything. maps are what
// /proc/PID/maps has of one process of the service; files are the names in the reports directory.
func (s Spec) Armed(maps io.Reader, files []string) error {
	switch s.Kind {
	case AuditPHP:
		return phpArmed(maps, files)
	case AuditPython, AuditNode:
		for _, name := range files {
			if strings.HasPrefix(name, "loaded.") {
				return nil
			}
		}
		return fmt.Errorf("no process of the oracle loaded the audit hook: it is no %s, or ignores its environment", s.Kind)
	}
	found, err := mapped(maps, s.mapped)
	if err == nil && !found {
		err = fmt.Errorf("nothing of a %s is mapped in the oracle", s.Kind)
	}
	return err
}

// mapped reports whether a line of /proc/PID/maps is one that is looked for.
func mapped(maps io.Reader, is func(line string) bool) (bool, error) {
	lines := bufio.NewScanner(io.LimitReader(maps, 8<<20))
	lines.Buffer(nil, 64<<10)
	for lines.Scan() {
		if is(lines.Text()) {
			return true, nil
		}
	}
	if err := lines.Err(); err != nil {
		return false, fmt.Errorf("look for the hardening: %w", err)
	}
	return false, nil
}

func (s Spec) mapped(line string) bool {
	_, file, _ := strings.Cut(line, "/")
	name := path.Base(file)
	switch s.Kind {
	case Sanitizer:
		for _, shadow := range shadows {
			if strings.HasPrefix(line, shadow) {
				return true
			}
		}
		return OwnCall(name) && !strings.HasPrefix(name, "vgpreload_") && !strings.HasPrefix(name, "libc_malloc_debug")
	case Valgrind:
		return strings.HasPrefix(name, "vgpreload_") || strings.HasPrefix(name, "memcheck-")
	case Hardened:
		// What is mapped is where the link points to: "libx.so" is "libx.so.1.2".
		library, _, _ := strings.Cut(path.Base(s.Preload), ".so")
		if s.Preload == "" {
			library = "libc_malloc_debug"
		}
		return strings.HasPrefix(name, library)
	}
	return false
}
