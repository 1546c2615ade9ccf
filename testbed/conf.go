// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// podmanLimit is what Podman sets nofile and nproc to.
const podmanLimit = 1 << 20

// hostConfs are where a distribution and an administrator configure Podman. CONTAINERS_CONF replaces both, so the private
// file starts from the last one that is there: "the engine's default" stays the distribution's.
var hostConfs = [...]string{"/usr/share/containers/containers.conf", "/etc/containers/containers.conf"}

// setting of a TOML table.
type setting struct{ table, key, value string }

func (e *Env) settings() ([]setting, error) {
	quote := func(s string) string { return fmt.Sprintf("%q", s) }
	s := []setting{
		{"containers", "log_driver", `"k8s-file"`}, // no journald needed
		{"engine", "cgroup_manager", `"cgroupfs"`}, // no systemd needed
		{"engine", "events_logger", `"file"`},
		{"engine", "hooks_dir", "[" + quote(e.HooksDir()) + "]"},
		{"engine", "image_copy_tmp_dir", quote(e.path("tmp"))},
		{"engine", "lock_type", `"file"`}, // otherwise all Podmans of the host share /dev/shm/libpod_lock
		{"engine", "runtime", quote(e.Runtime)},
		{"engine", "tmp_dir", quote(e.path("run", "libpod"))},
		{"engine", "volume_path", quote(e.path("volumes"))},
		{"network", "network_config_dir", quote(e.path("networks"))},
	}
	ulimits, err := ulimits()
	if err != nil {
		return nil, err
	}
	if len(ulimits) > 0 {
		s = append(s, setting{"containers", "default_ulimits", `["` + strings.Join(ulimits, `", "`) + `"]`})
	}
	return s, nil
}

// ulimits that containers must get because Podman's own are above this process's hard limits and it may not raise them.
func ulimits() ([]string, error) {
	raise, err := hasCapability(unix.CAP_SYS_RESOURCE)
	if err != nil || raise {
		return nil, err
	}
	var out []string
	for _, limit := range []struct {
		name     string
		resource int
	}{{"nofile", unix.RLIMIT_NOFILE}, {"nproc", unix.RLIMIT_NPROC}} {
		var r unix.Rlimit
		if err := unix.Getrlimit(limit.resource, &r); err != nil {
			return nil, fmt.Errorf("read the limit %s: %w", limit.name, err)
		}
		most := r.Max
		if limit.resource == unix.RLIMIT_NPROC {
			// Podman lowers its own limit to the number of pids, and cannot raise its containers' above that.
			pids, err := pidMax()
			if err != nil {
				return nil, err
			}
			most = min(most, pids)
		}
		if most < podmanLimit {
			out = append(out, fmt.Sprintf("%s=%d:%d", limit.name, most, most))
		}
	}
	return out, nil
}

func pidMax() (uint64, error) {
	text, err := os.ReadFile("/proc/sys/kernel/pid_max")
	if err != nil {
		return 0, fmt.Errorf("read how many pids there are: %w", err)
	}
	return strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
}

func hasCapability(c uint) (bool, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false, fmt.Errorf("read capabilities: %w", err)
	}
	return data[c/32].Effective&(1<<(c%32)) != 0, nil
}

// containersConf is the host's configuration with the settings in it.
func containersConf(settings []setting) (string, error) {
	host := ""
	for _, name := range hostConfs {
		text, err := os.ReadFile(name)
		if err == nil {
			host = string(text)
		} else if !os.IsNotExist(err) {
			return "", fmt.Errorf("read the host's Podman configuration: %w", err)
		}
	}
	return override(host, settings), nil
}

// override replaces keys of a TOML file. It knows as much of TOML as containers.conf uses: tables, and values that may be arrays
// over several lines.
func override(conf string, settings []setting) string {
	replaced := func(table, key string) bool {
		return slices.ContainsFunc(settings, func(s setting) bool { return s.table == table && s.key == key })
	}
	var b strings.Builder
	table, dropping := "", false
	written := make(map[string]bool)
	put := func(table string) {
		written[table] = true
		for _, s := range settings {
			if s.table == table {
				fmt.Fprintf(&b, "%s = %s\n", s.key, s.value)
			}
		}
	}
	for line := range strings.Lines(conf) {
		text := strings.TrimSpace(line)
		if dropping {
			dropping = !strings.HasSuffix(text, "]")
			continue
		}
		if text == "" || text[0] == '#' {
			continue
		}
		if text[0] == '[' {
			table = strings.Trim(text, "[]")
			b.WriteString(text + "\n")
			put(table)
			continue
		}
		key, value, _ := strings.Cut(text, "=")
		if replaced(table, strings.TrimSpace(key)) {
			value = strings.TrimSpace(value)
			dropping = strings.HasPrefix(value, "[") && !strings.HasSuffix(value, "]")
			continue
		}
		b.WriteString(text + "\n")
	}
	for _, s := range settings {
		if !written[s.table] {
			fmt.Fprintf(&b, "[%s]\n", s.table)
			put(s.table)
		}
	}
	return b.String()
}

// Hybrid finds the cgroup2 mount of a host that has cgroup v1 beside it and controllers on the v2 side; crun refuses such a
// host. It is empty on all others.
func Hybrid() (string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("look for cgroup mounts: %w", err)
	}
	v1, v2 := false, ""
	for line := range strings.Lines(string(text)) {
		before, after, _ := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		if len(fields) < 5 {
			continue
		}
		switch kind, _, _ := strings.Cut(after, " "); kind {
		case "cgroup":
			v1 = true
		case "cgroup2":
			v2 = fields[4]
		}
	}
	if !v1 || v2 == "" {
		return "", nil
	}
	controllers, err := os.ReadFile(v2 + "/cgroup.controllers")
	if err != nil {
		return "", fmt.Errorf("read the controllers of cgroup v2: %w", err)
	}
	if strings.TrimSpace(string(controllers)) == "" {
		return "", nil
	}
	return v2, nil
}
