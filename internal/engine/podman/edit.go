// SPDX-License-Identifier: Apache-2.0

package podman

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/engine/sockethttp"
)

// dropped options say how one container was made, and nothing of what it is: files that name it (whose readers mean the
// predecessor), who waits for it, where its image came from (the successor has the very same).
var dropped = []string{
	"name", "replace", "detach", "detach-keys", "sig-proxy", "cidfile", "conmon-pidfile", "pidfile", "sdnotify", "quiet", "help",
	"pull", "authfile", "tls-verify", "creds", "cert-dir", "decryption-key", "retry", "retry-delay", "disable-content-trust",
	"arch", "os", "platform", "variant", "signature-policy", "kernel-memory",
	"http-proxy", // at a socket podman means the server's: see proxies
}

// proxyEnv are the variables of --http-proxy, in small letters.
var proxyEnv = []string{"http_proxy", "https_proxy", "ftp_proxy", "no_proxy"}

// ofPod are what a pod that was made along with its first container took over.
var ofPod = []string{
	"publish", "publish-all", "network", "network-alias", "ip", "ip6", "mac-address", "add-host", "dns", "dns-option", "dns-search",
	"no-hosts", "hostname", "expose", "userns",
}

// editor rewrites the command line of a container into the one of a successor. It asks nobody: what the container was made
// of when its command line was relative (a path, a variable of somebody's shell, a port that was free) is in its inspection.
type editor struct {
	in       inspection
	imageEnv []string // of the container's image
	labels   map[string]string
	networks map[string]network // that it is connected to, where their addresses are asked for
	changes  engine.Changes
	exists   func(path string) bool

	out      []setting
	problems []string
	whole    bool // the environment is given whole
	labelled bool // and so are the labels
	publish  bool // and the ports
	ipv4     bool // some for 0.0.0.0, and nothing else
}

func (e *editor) add(name, value string) {
	e.out = append(e.out, setting{flag{name: name, value: true}, value})
}

func (e *editor) problem(format string, args ...any) {
	e.problems = append(e.problems, fmt.Sprintf(format, args...))
}

// edit returns what is to be asked for, and why that would not be the same container. The image is the caller's matter.
func (e *editor) edit(c command) (command, []string) {
	if pod, ok := c.is("pod"); ok && strings.HasPrefix(pod, "new:") {
		c.options = slices.DeleteFunc(slices.Clone(c.options), func(o setting) bool { return contains(ofPod, o.name) })
	}
	e.publish = c.on("publish-all") || slices.ContainsFunc(c.options, func(o setting) bool { return o.name == "publish" && anyPort(o.text) })
	e.ipv4 = slices.ContainsFunc(c.options, func(o setting) bool { return o.name == "publish" && strings.HasPrefix(o.text, "0.0.0.0:") })
	e.whole = c.on("env-host") || slices.ContainsFunc(c.options, func(o setting) bool { return o.name == "env-file" && !e.exists(o.text) })
	for _, o := range c.options {
		if !contains(dropped, o.name) {
			e.option(o)
		}
	}
	if _, had := c.is("pod-id-file"); had || e.has("pod") {
		e.out = slices.DeleteFunc(e.out, func(o setting) bool { return o.name == "pod" })
		e.add("pod", e.in.Pod)
	}
	e.resolved()
	e.findable()
	e.addressed()
	e.anonymous()
	e.changed()
	out := command{options: e.out, image: c.image, args: c.args}
	if e.changes.Command != nil {
		out.args = e.changes.Command
	} else if e.changes.Entrypoint != nil && len(c.args) == 0 {
		out.args = e.in.Config.Cmd // podman drops the image's when the entrypoint is another
	}
	return out, e.problems
}

func (e *editor) has(name string) bool {
	return slices.ContainsFunc(e.out, func(o setting) bool { return o.name == name })
}

// option by option.
func (e *editor) option(o setting) {
	keep := func() { e.out = append(e.out, o) }
	switch o.name {
	case "env":
		e.variable(o.text)
	case "env-file", "env-merge":
		if !e.whole {
			keep()
		}
	case "env-host", "publish-all", "pod-id-file": // resolved below
	case "label-file":
		if e.exists(o.text) {
			keep()
		} else {
			e.labelled = true
		}
	case "publish":
		if !e.publish {
			keep()
		}
	case "volume":
		e.volume(o.text)
	case "mount":
		e.mount(o.text)
	case "network", "pid", "ipc", "uts", "userns":
		e.namespace(o)
	case "security-opt":
		e.security(o.text)
	case "seccomp-policy":
		if e.changes.Seccomp == "" {
			keep()
		}
	case "entrypoint":
		if e.changes.Entrypoint == nil {
			keep()
		}
	case "rootfs":
		if e.changes.Image == "" {
			keep()
		}
	case "restart":
		if !e.changes.NoRestart {
			keep()
		}
	case "rmi":
		if truth(o.text) {
			e.add("rm", "true")
		}
	default:
		e.odd(o)
		keep()
	}
}

// odd options cannot be given again.
func (e *editor) odd(o setting) {
	switch o.name {
	case "preserve-fds", "preserve-fd":
		if o.text != "0" {
			e.problem("it inherited file descriptors from who started it (--%s)", o.name)
		}
	case "init-ctr":
		e.problem("it is an init container of a pod")
	case "cgroups":
		if o.text == "split" {
			e.problem("--cgroups=split puts it in the control group of the unit that starts it: let that unit make it again")
		}
	}
}

// variable NAME=VALUE, or NAME and NAME* as they were where it was created.
func (e *editor) variable(text string) {
	if strings.Contains(text, "=") || e.whole {
		if !e.whole {
			e.add("env", text)
		}
		return
	}
	prefix, many := strings.CutSuffix(text, "*")
	for _, v := range e.in.Config.Env {
		name, _, _ := strings.Cut(v, "=")
		if name == text || many && strings.HasPrefix(name, prefix) && !slices.Contains(e.imageEnv, v) && !contains(engineEnv, name) {
			e.add("env", v)
		}
	}
}

// security options. A relative path was meant from somewhere.
func (e *editor) security(text string) {
	profile, ok := strings.CutPrefix(strings.Replace(text, "seccomp:", "seccomp=", 1), "seccomp=")
	switch {
	case !ok:
		e.add("security-opt", text)
	case e.changes.Seccomp != "":
	case profile != engine.SeccompUnconfined && profile != engine.SeccompDefault && !filepath.IsAbs(profile):
		e.problem("the path of its seccomp profile is relative: %s", printable(profile))
	default:
		e.add("security-opt", text)
	}
}

// namespace of another container: by its id, which stays when it is renamed.
func (e *editor) namespace(o setting) {
	h := e.in.HostConfig
	mode := map[string]string{"network": h.NetworkMode, "pid": h.PidMode, "ipc": h.IpcMode, "uts": h.UTSMode, "userns": h.UsernsMode}[o.name]
	if strings.HasPrefix(o.text, "container:") && strings.HasPrefix(mode, "container:") {
		o.text = mode
	}
	e.out = append(e.out, o)
}

// resolved are options that stand for what was found when it was created.
func (e *editor) resolved() {
	if e.whole {
		for _, v := range e.in.Config.Env {
			name, _, _ := strings.Cut(v, "=")
			if !slices.Contains(e.imageEnv, v) && !contains(engineEnv, name) {
				e.add("env", v)
			}
		}
	}
	if !e.whole {
		e.proxies()
	}
	if e.labelled {
		for _, key := range slices.Sorted(maps.Keys(e.in.Config.Labels)) {
			if value := e.in.Config.Labels[key]; e.labels[key] != value {
				e.add("label", key+"="+value)
			}
		}
	}
	if e.publish {
		for _, p := range sockethttp.Ports(e.in.HostConfig.PortBindings) {
			host := ""
			switch {
			case !p.HostIP.IsValid(), p.HostIP == netip.IPv4Unspecified() && !e.ipv4: // Podman 5 writes 0.0.0.0 of nothing
			case p.HostIP.Is4():
				host = p.HostIP.String() + ":"
			default:
				host = "[" + p.HostIP.String() + "]:"
			}
			e.add("publish", fmt.Sprintf("%s%d:%d/%s", host, p.HostPort, p.ContainerPort, p.Protocol))
		}
	}
}

// findable by the name that others in its networks ask for. Podman's server of names learns a container's own when it starts,
// under which a successor has another one, and is told nothing when it is renamed.
func (e *editor) findable() {
	networks := e.in.NetworkSettings.Networks
	_, nameless := networks[defaultNetwork] // aliases are for all of them
	if len(networks) == 0 || nameless || e.in.HostConfig.NetworkMode != "bridge" || e.in.Pod != "" {
		return
	}
	if !slices.ContainsFunc(e.out, func(o setting) bool { return o.name == "network-alias" && o.text == e.in.Name }) {
		e.add("network-alias", e.in.Name)
	}
}

// defaultNetwork has no names.
const defaultNetwork = "podman"

// proxies of the shell that created it, which Podman hands on unless it is told not to.
func (e *editor) proxies() {
	for _, v := range e.in.Config.Env {
		name, _, _ := strings.Cut(v, "=")
		if !contains(proxyEnv, strings.ToLower(name)) || slices.Contains(e.imageEnv, v) {
			continue
		}
		if !slices.ContainsFunc(e.out, func(o setting) bool { return o.name == "env" && strings.HasPrefix(o.text, name+"=") }) {
			e.add("env", v)
		}
	}
}

// changed adds what is asked to be different.
func (e *editor) changed() {
	c := e.changes
	if c.Name != "" {
		e.add("name", c.Name)
	}
	if c.Seccomp != "" {
		e.add("security-opt", "seccomp="+c.Seccomp)
	}
	if c.Entrypoint != nil {
		text := ""
		if len(*c.Entrypoint) > 0 {
			list, err := json.Marshal(*c.Entrypoint)
			if err != nil {
				e.problem("the entrypoint: %v", err)
			}
			text = string(list)
		}
		e.add("entrypoint", text)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Env)) {
		e.add("env", name+"="+c.Env[name])
	}
	for _, key := range slices.Sorted(maps.Keys(c.Labels)) {
		e.add("label", key+"="+c.Labels[key])
	}
	for _, m := range c.Mounts {
		e.besides(m)
	}
	e.add("pull", "never") // what is made again must not become something newer
}

func contains(list []string, name string) bool { return slices.Contains(list, name) }

// exists tells whether an absolute path still leads to a file.
func exists(path string) bool {
	if !filepath.IsAbs(path) {
		return false
	}
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}
