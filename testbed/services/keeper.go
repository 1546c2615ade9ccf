// SPDX-License-Identifier: Apache-2.0

package services

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// keeper holds a mount and a network namespace, and cleans up. It ends when its stdin is closed, as happens when this
// program dies, whatever of: so there is one way in which things are removed, and it needs nobody alive.
type keeper struct {
	cmd   *exec.Cmd
	stdin io.Closer
	log   *os.File // its stderr: it outlives the file's name
	dir   string
}

// clear removes the cgroups of a container, and what runs in them. A runtime that is cut off has made them before it writes the
// state by which it would remove them. A process of another pid namespace is read as 0, which is no process to kill.
const clear = `
clear() {
	for c in /sys/fs/cgroup/"$1" /sys/fs/cgroup/*/"$1"; do
		for i in 1 2 3 4 5; do
			[ -d "$c" ] || break
			find "$c" -name cgroup.procs -exec cat {} + | grep -vx 0 | xargs -r kill -9
			find "$c" -depth -type d -exec rmdir {} + && break
			[ $i = 5 ] && left=1
			sleep 0.2
		done
	done
}
`

// keep is what it runs: $1 is the directory, $2 the container, $3 the runtime, $4 cgroup v2's mount where crun must not see that
// it is a hybrid. A killed container's processes may be in the way of removing for a moment.
const keep = clear + `
cd "$1" || exit 1
ip link set lo up || exit 1
if [ -n "$4" ]; then mount --bind /dev/null "$4/cgroup.controllers" || exit 1; fi
mount -t overlay overlay -o lowerdir=/,upperdir="$1/upper",workdir="$1/overlay" "$1/rootfs" || exit 1
echo up
cat >/dev/null
left=0
for i in 1 2 3 4 5; do
	[ -e "$1/state/$2" ] || break
	"$3" --root "$1/state" delete --force "$2" && break
	[ $i = 5 ] && left=1
	sleep 0.2
done
clear "$2"
cd / && umount "$1/rootfs" && rm -rf "$1" && exit $left
`

func newKeeper(ctx context.Context, dir, id, runtime, hybrid string) (*keeper, error) {
	log, err := os.OpenFile(dir+"/keeper.log", os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	// Not CommandContext: it must live to clean up, and ends with stdin. A session of its own: Ctrl-C is not for it.
	cmd := exec.Command("unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", keep, "sh", dir, id, runtime, hybrid)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Stderr = log
	k := &keeper{cmd: cmd, log: log, dir: dir}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, in.Close(), log.Close())
	}
	k.stdin = in
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, in.Close(), log.Close())
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	if line != "up\n" || ctx.Err() != nil {
		text, _ := os.ReadFile(dir + "/keeper.log")
		err := fmt.Errorf("make namespaces and an overlay over /: %s", strings.TrimSpace(string(text)))
		return nil, errors.Join(err, ctx.Err(), k.end())
	}
	return k, nil
}

// enter is the command that runs another in its namespaces.
func (k *keeper) enter(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"--target", k.pid(), "--mount", "--net", "--"}, args...)...)
}

func (k *keeper) pid() string { return strconv.Itoa(k.cmd.Process.Pid) }

// end it, and everything that it keeps.
func (k *keeper) end() error {
	err := k.stdin.Close()
	wait := k.cmd.Wait()
	text, _ := io.ReadAll(io.NewSectionReader(k.log, 0, 1<<16))
	if wait != nil {
		err = errors.Join(err, fmt.Errorf("remove a container: %w: %s", wait, strings.TrimSpace(string(text))))
	}
	err = errors.Join(err, k.log.Close())
	if _, gone := os.Stat(k.dir); gone == nil {
		err = errors.Join(err, os.RemoveAll(k.dir))
	}
	return err
}

// owned is what the name of a container says of the process that started it.
var owned = regexp.MustCompile(`^wsvc-(\d+)-`)

// sweep removes what is left of containers whose harness is no more, as when it was killed together with its keeper.
func sweep() error {
	var names []string
	for _, pattern := range []string{"/sys/fs/cgroup/wsvc-*", "/sys/fs/cgroup/*/wsvc-*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		names = append(names, found...)
	}
	done := map[string]bool{}
	for _, name := range names {
		id := filepath.Base(name)
		m := owned.FindStringSubmatch(id)
		if m == nil || done[id] {
			continue
		}
		done[id] = true
		owner, err := strconv.Atoi(m[1])
		if err != nil || !errors.Is(unix.Kill(owner, 0), unix.ESRCH) {
			continue
		}
		cmd := exec.Command("sh", "-c", clear+`left=0; clear "$1"; exit $left`, "sh", id)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("remove the cgroups of %s, whose harness has ended: %w: %s", id, err, tail(string(out)))
		}
	}
	return nil
}

// swept before the first container.
var swept = sync.OnceValue(sweep)
