// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"path"
	"strings"
)

// ownLibraries are what the hardenings bring with them. A statically linked sanitizer has no file of its own: what it calls
// counts as the service's, and is learned with it.
var ownLibraries = []string{
	"libasan.so", "libubsan.so", "libtsan.so", "liblsan.so", "libhwasan.so", "libclang_rt.", "libc_malloc_debug.so",
	"libhardened_malloc", "vgpreload_", "vgdb",
}

// ownTools are valgrind's, which run the service in their own process.
var ownTools = []string{"memcheck-", "none-", "addrcheck-"}

// OwnCall reports whether a call that comes from code of this file is the hardening's own and not the service's.
// Valgrind makes all of a service's calls itself: from its code nothing can be told apart, and the caller has to
// look at Kind before it leaves such calls out.
func OwnCall(origin string) bool {
	dir, name := path.Split(path.Clean(origin))
	for _, library := range ownLibraries {
		if strings.HasPrefix(name, library) {
			return true
		}
	}
	// "/usr/libexec/valgrind/memcheck-amd64-linux", "/usr/lib/valgrind/…"
	if path.Base(dir) != "valgrind" || !strings.HasSuffix(name, "-linux") {
		return false
	}
	for _, tool := range ownTools {
		if strings.HasPrefix(name, tool) {
			return true
		}
	}
	return false
}
