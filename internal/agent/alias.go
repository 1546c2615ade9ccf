// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"path"

	"github.com/whittle-sec/whittle/internal/supervise"
)

// searched are the directories where runtimes look for a command without a slash; images seldom set others.
var searched = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// nameOf a process that runs already: the path that the container's command names, if it leads to the program of the
// process. Debian's /usr/bin/redis-server is a symbolic link to redis-check-rdb: an exec tells the former, which is the
// role that was learned, and /proc the latter.
func nameOf(command []string) func(pid int) string {
	var names []string
	switch {
	case len(command) == 0:
	case path.IsAbs(command[0]):
		names = []string{command[0]}
	case path.Base(command[0]) == command[0]:
		for _, dir := range searched {
			names = append(names, path.Join(dir, command[0]))
		}
	}
	return func(pid int) string {
		for _, name := range names {
			if supervise.SameFile(pid, name) {
				return name
			}
		}
		return ""
	}
}
