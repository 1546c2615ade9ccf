// SPDX-License-Identifier: Apache-2.0

package services

import (
	"fmt"
	"os/user"
	"runtime"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/whittle-sec/whittle/internal/filter"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// dockerCaps are what Docker and Podman give a container by default (moby's oci/caps/defaults.go).
var dockerCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// spec of the container, as Docker would write it: its default profile, its capabilities, no user namespace.
func (s Service) spec(root, netns, cgroup string) (*specs.Spec, error) {
	abi, ok := syscalls.Native(runtime.GOARCH)
	if !ok {
		return nil, fmt.Errorf("no default profile for %s", runtime.GOARCH)
	}
	profile, err := filter.DefaultProfile(abi)
	if err != nil {
		return nil, err
	}
	caps := append(append([]string(nil), dockerCaps...), s.ExtraCaps...)
	process := &specs.Process{
		Args: s.Args, Env: append([]string{path}, s.Env...), Cwd: "/",
		Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
	}
	if s.User != "" {
		if process.User.UID, process.User.GID, err = account(s.User); err != nil {
			return nil, err
		}
		if process.User.AdditionalGids, err = groupsOf(s.User); err != nil {
			return nil, err
		}
		// As the kernel takes them away from who is not root, so that no exec brings them back.
		process.Capabilities.Effective, process.Capabilities.Permitted = nil, nil
	}
	mount := func(at, kind string, options ...string) specs.Mount {
		return specs.Mount{Destination: at, Type: kind, Source: kind, Options: options}
	}
	return &specs.Spec{
		Version: "1.0.2", Hostname: s.Name, Process: process, Root: &specs.Root{Path: root},
		Mounts: []specs.Mount{
			mount("/proc", "proc"),
			mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
			mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
			mount("/dev/shm", "tmpfs", "nosuid", "noexec", "nodev", "mode=1777", "size=262144k"),
			mount("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev"),
			mount("/sys", "sysfs", "nosuid", "noexec", "nodev", "ro"),
		},
		Linux: &specs.Linux{
			CgroupsPath: cgroup, Seccomp: profile,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.MountNamespace},
				{Type: specs.NetworkNamespace, Path: netns},
			},
			Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
			MaskedPaths: []string{
				"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
				"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
			},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}, nil
}

func groupsOf(owner string) (gids []uint32, err error) {
	u, err := user.Lookup(owner)
	if err != nil {
		return nil, err
	}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		gid, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return nil, err
		}
		gids = append(gids, uint32(gid))
	}
	return gids, nil
}
