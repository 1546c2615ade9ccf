// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/engine/podman"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/kernel"
	"golang.org/x/sys/unix"
)

func checkRoot(context.Context, *app) finding {
	if os.Geteuid() == 0 {
		return finding{Answer: yes}
	}
	return finding{Answer: no, Detail: "not root: the checks below see less", Fix: "sudo whittle doctor"}
}

func checkKernel(context.Context, *app) finding {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return finding{Detail: err.Error()}
	}
	release := unix.ByteSliceToString(u.Release[:])
	return kernelFinding(release)
}

func kernelFinding(release string) finding {
	var major, minor int
	if n, err := fmt.Sscanf(release, "%d.%d", &major, &minor); n != 2 || err != nil {
		return finding{Detail: "unknown release " + release}
	}
	if major < 5 || major == 5 && minor < 15 {
		return finding{Answer: no, Detail: release, Needs: "Linux 5.15", Fix: "Debian 12, Ubuntu 22.04 and later have it"}
	}
	return finding{Answer: yes, Detail: release}
}

func checkBTF(context.Context, *app) finding {
	const path = "/sys/kernel/btf/vmlinux"
	_, err := os.Stat(path)
	switch {
	case err == nil:
		return finding{Answer: yes, Detail: path}
	case errors.Is(err, fs.ErrNotExist):
		return finding{Answer: no, Detail: path + " is missing", Needs: "Linux 5.4 with CONFIG_DEBUG_INFO_BTF",
			Fix: "use a distribution's kernel; if /sys is not mounted: mount -t sysfs sysfs /sys"}
	}
	return finding{Detail: err.Error()}
}

func checkLockdown(context.Context, *app) finding {
	text, err := os.ReadFile("/sys/kernel/security/lockdown")
	if errors.Is(err, fs.ErrNotExist) {
		return finding{Answer: yes, Detail: "the kernel has no lockdown, or securityfs is not mounted"}
	}
	if err != nil {
		return finding{Detail: err.Error()}
	}
	return lockdownFinding(string(text))
}

// lockdownFinding of a line like "none [integrity] confidentiality".
func lockdownFinding(text string) finding {
	_, after, _ := strings.Cut(text, "[")
	mode, _, ok := strings.Cut(after, "]")
	switch {
	case !ok:
		return finding{Detail: "unknown answer " + strings.TrimSpace(text)}
	case mode == "confidentiality":
		return finding{Answer: no, Detail: "mode " + mode + ": BPF may not read kernel memory",
			Fix: "boot with lockdown=integrity"}
	}
	return finding{Answer: yes, Detail: "mode " + mode}
}

func checkLoad(context.Context, *app) finding {
	o, err := kernel.Open(logger(io.Discard, false))
	switch {
	case err == nil:
		o.Close()
		return finding{Answer: yes, Detail: "tracepoints, task storage, ring buffer"}
	case os.Geteuid() != 0:
		return finding{Detail: "needs root to tell", Fix: "sudo whittle doctor"}
	case errors.Is(err, kernel.ErrUnsupported):
		return finding{Answer: no, Detail: err.Error(), Needs: "Linux 5.15 with BTF", Fix: hint.Of(err)}
	}
	return finding{Detail: err.Error()}
}

// checkAttach does once what learning from a container does, to an empty cgroup, and times it.
func checkAttach(context.Context, *app) finding {
	if os.Geteuid() != 0 {
		return finding{Detail: "needs root to tell", Fix: "sudo whittle doctor"}
	}
	g, err := newCgroup()
	if err != nil {
		return finding{Answer: no, Detail: err.Error(), Fix: hint.Of(err)}
	}
	defer g.remove()
	o, err := kernel.Open(logger(io.Discard, false))
	if err != nil {
		return finding{Answer: no, Detail: "the programs do not load"}
	}
	defer o.Close()
	start := time.Now()
	id, err := o.Observe(kernel.Target{CgroupID: g.id})
	attached := time.Since(start)
	if err != nil {
		return finding{Answer: no, Detail: err.Error(), Fix: hint.Of(err)}
	}
	start = time.Now()
	if _, err := o.Finish(id, true); err != nil {
		return finding{Answer: no, Detail: err.Error(), Fix: hint.Of(err)}
	}
	return finding{Answer: yes, Detail: fmt.Sprintf("in %s and %s", millis(attached), millis(time.Since(start)))}
}

// millis in ASCII, which every terminal shows.
func millis(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000) }

func checkCgroup(context.Context, *app) finding {
	mount, err := cgroupMount()
	if err != nil {
		return finding{Answer: no, Detail: err.Error(), Needs: "Linux 4.5", Fix: hint.Of(err)}
	}
	return finding{Answer: yes, Detail: mount}
}

// actions that the kernel's filters know.
func actions() ([]string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/seccomp/actions_avail")
	return strings.Fields(string(text)), err
}

func checkSeccomp(context.Context, *app) finding {
	all, err := actions()
	if err != nil {
		return finding{Detail: err.Error(), Needs: "Linux 4.14 with CONFIG_SECCOMP_FILTER", Fix: "use a distribution's kernel"}
	}
	if slices.Contains(all, "errno") && slices.Contains(all, "allow") {
		return finding{Answer: yes}
	}
	return finding{Answer: no, Needs: "CONFIG_SECCOMP_FILTER", Fix: "use a distribution's kernel"}
}

// checkClock: with a slow clock source the C library's clock calls become system calls. They are always allowed.
func checkClock(context.Context, *app) finding {
	text, err := os.ReadFile("/sys/devices/system/clocksource/clocksource0/current_clocksource")
	if err != nil {
		return finding{Detail: err.Error()}
	}
	return clockFinding(strings.TrimSpace(string(text)))
}

func clockFinding(source string) finding {
	switch source {
	case "tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter":
		return finding{Answer: yes, Detail: source}
	case "":
		return finding{}
	}
	return finding{Answer: no, Detail: source + ": reading the clock is a system call here; it is always allowed",
		Fix: "nothing needs to be done; observing costs more than elsewhere"}
}

func checkRuntime(context.Context, *app) finding {
	var found []string
	for _, name := range []string{"runc", "crun"} {
		if path, err := exec.LookPath(name); err == nil {
			found = append(found, path)
		}
	}
	if len(found) == 0 {
		return finding{Answer: no, Detail: "neither runc nor crun", Fix: "apt-get install crun; whittle run needs none"}
	}
	return finding{Answer: yes, Detail: strings.Join(found, ", ")}
}

func checkPodman(ctx context.Context, socket string) finding {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	p := podman.New(socket)
	defer p.Close()
	v, err := p.Version(ctx)
	if err != nil {
		return finding{Answer: no, Detail: err.Error(), Fix: hint.Of(err)}
	}
	return finding{Answer: yes, Detail: v}
}

func checkAgent(ctx context.Context, a *app) finding {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	client := api.NewClient(a.socket)
	defer client.Close()
	s, err := client.Status(ctx)
	switch {
	case err == nil:
		return finding{Answer: yes, Detail: fmt.Sprintf("%s, pid %d, %d containers", s.Version, s.PID, len(s.Containers))}
	case errors.Is(err, api.ErrNotRunning):
		return finding{Answer: no, Detail: err.Error(), Fix: hint.Of(err)}
	}
	return finding{Detail: err.Error(), Fix: hint.Of(err)}
}

func checkGroup(context.Context, *app) finding {
	_, err := user.LookupGroup(api.Group)
	var unknown user.UnknownGroupError
	switch {
	case err == nil:
		return finding{Answer: yes}
	case errors.As(err, &unknown):
		return finding{Answer: no, Detail: "only root may talk to the agent",
			Fix: "sudo groupadd -f whittle && sudo usermod -aG whittle USER"}
	}
	return finding{Detail: err.Error()}
}
