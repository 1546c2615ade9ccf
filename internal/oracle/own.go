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

// Alike reports whether a program of the twin stands for one of production: it has the name, with something added where
// it was built for the twin (redis-server-asan), or it is valgrind's tool, which runs every program itself.
func Alike(twin, production string) bool {
	name, of := path.Base(twin), path.Base(production)
	if runsAll(name) || !path.IsAbs(production) {
		return runsAll(name)
	}
	// Something added is set apart: bash is not sh.
	before, after, has := strings.Cut(name, of)
	return has && (before == "" || strings.ContainsAny(before[len(before)-1:], "-._")) && (after == "" || strings.ContainsAny(after[:1], "-._"))
}

// Launches reports whether a program of the twin puts the hardening into force, and is not the service's: valgrind's command is a
// script, which executes a launcher, which executes the tool. Whatever the service starts, the tool runs.
func (s Spec) Launches(program string, boot bool) bool {
	name := path.Base(program)
	if s.Kind != Valgrind || !path.IsAbs(program) || runsAll(name) {
		return false
	}
	return boot || name == "valgrind" || name == "valgrind.bin"
}

// RunsAll reports whether all programs of the twin are one to whoever looks at it from outside.
func (k Kind) RunsAll() bool { return k == Valgrind }

// runsAll programs in their place: which one a process of it is cannot be told by its file.
func runsAll(name string) bool { return strings.HasPrefix(name, "memcheck-") }
