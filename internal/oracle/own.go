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

// OwnCall reports whether a call that comes from code of this file is the hardening's own and not the service's. Valgrind's
// tool is not among them: it makes all of the service's calls itself, so that nothing can be told apart by where a call
// comes from, and leaving its calls out would leave nothing to learn.
func OwnCall(origin string) bool {
	name := path.Base(path.Clean(origin))
	for _, library := range ownLibraries {
		if strings.HasPrefix(name, library) {
			return true
		}
	}
	return false
}
