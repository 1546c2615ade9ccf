// SPDX-License-Identifier: Apache-2.0

package podman

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/testbed"
	"github.com/whittle-sec/whittle/testbed/bedtest"
)

// shop is a podman with a client of its own directory, from which relative paths start.
type shop struct {
	*testing.T
	env *testbed.Env
	p   *Podman
	dir string
}

func open(t *testing.T) shop {
	testenv.NeedPodman(t)
	testenv.NeedTool(t, "busybox")
	e := bedtest.Up(t, "")
	bedtest.LoadBusybox(t, e)
	p := New(e.Socket())
	t.Cleanup(p.Close)
	s := shop{t, e, p, t.TempDir()}
	for name, text := range map[string]string{"profile.json": "{}", "env": "FILE=1\n", "labels": "file=1\n", "file": "x"} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s shop) podman(args ...string) string {
	s.Helper()
	cmd := s.env.Command(s.Context(), args...)
	cmd.Dir, cmd.Env = s.dir, append(os.Environ(), "CALLER=from the shell", "http_proxy=http://127.0.0.1:9")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		s.Fatalf("podman %q: %v: %s", args, err, stderr.String())
	}
	lines := strings.Fields(string(out))
	return lines[len(lines)-1]
}

// What a command line left to the place and the time where it was typed is as it was then.
func TestMakeOfRelative(t *testing.T) {
	s := open(t)
	s.podman("create", "--name", "volumes", "-v", "/anonymous", "-v", "from:/from", bedtest.Busybox, "/bin/sh")
	s.podman("create", "--name", "owner", "--network", "none", bedtest.Busybox, "/bin/sh", "-c", "sleep 1000")
	pod := s.podman("pod", "create", "--name", "pod", "--infra-image", bedtest.Busybox, "--infra-command", "/bin/sh -c 'sleep 1000'", "--network", "none", "--pod-id-file", "pod.id")
	s.Cleanup(func() {
		if _, err := s.env.Run(context.Background(), "pod", "rm", "--force", "--time", "0", pod); err != nil {
			t.Error(err)
		}
	})
	t.Run("whose network it is", func(t *testing.T) {
		podNetwork(t, s.p, s.podman("create", "--pod", "pod", bedtest.Busybox, "/bin/sh"), pod)
	})
	gone := []string{"env", "labels"}
	for _, tt := range []struct {
		name string
		args []string
	}{
		{"ports", []string{"-p", "127.0.0.1:18080:80", "-p18081:81/udp", "-p=127.0.0.1::82", "-p", "7000-7002:7000-7002", "-p", "[::1]:90:90", "-P", "--expose", "91"}},
		{"fixed ports", []string{"-p", "127.0.0.1:18080:80", "--publish", "18081:81/udp"}},
		{"paths", []string{"-v", "./file:/file:ro", "--volume=.:/dir", "--mount", "type=bind,src=./file,dst=/other"}},
		{"variables", []string{"-e", "CALLER", "-eNONE", "-e", "CALL*", "--env", "CALLER2=$CALLER"}},
		{"the whole environment", []string{"--env-host", "-e", "A=1"}},
		{"a file of variables that is gone", []string{"--env-file", "./env", "-e", "A=1"}},
		{"a file of labels that is gone", []string{"--label-file", "./labels", "--label", "a=b"}},
		{"files for the predecessor", []string{"--cidfile", "./cid", "--pidfile=pid", "--replace", "--sdnotify=conmon", "--rm"}},
		{"no proxies", []string{"--http-proxy=false"}},
		{"volumes of another", []string{"--volumes-from", "volumes"}},
		{"another's namespaces", []string{"--network", "container:owner", "--pid=container:owner", "--ipc", "container:owner"}},
		{"pod", []string{"--pod", "pod"}},
		{"pod by its file", []string{"--pod-id-file", "pod.id"}},
		{"for pulling", []string{"--pull=missing", "--tls-verify=false", "-q", "--platform=linux"}},
		{"old names", []string{"--net=host", "--dns-opt=x", "--healthcheck-command=true", "--healthcheck-interval=1h"}},
		{"clusters", []string{"-it", "-dtq=false", "-l", "a", "-la=b", "-w/tmp", "-u0:0", "-m64m"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := s
			s.T = t
			verb := "create"
			if slices.Contains(tt.args, "-dtq=false") {
				verb = "run" // with --detach
			}
			args := append([]string{"--log-level=error", "container", verb, "--name", "first"}, tt.args...)
			first := s.podman(append(args, bedtest.Busybox, "/bin/sh", "-c", "sleep 1000", "--name", "x")...)
			for _, name := range gone {
				if err := os.Rename(filepath.Join(s.dir, name), filepath.Join(s.dir, "was-"+name)); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("CALLER", "somebody else")
			second, err := s.p.Make(t.Context(), first, engine.Changes{Name: "second"})
			for _, name := range gone {
				if err := os.Rename(filepath.Join(s.dir, "was-"+name), filepath.Join(s.dir, name)); err != nil {
					t.Fatal(err)
				}
			}
			if err != nil {
				t.Errorf("Make: %v (hint: %s)", err, hint.Of(err))
			}
			if second != "" {
				s.podman("rm", "--force", "--time=0", second)
			}
			s.podman("rm", "--force", "--time=0", first)
		})
	}
}

// podNetwork: a pod keeps it, in a container that is not made again.
func podNetwork(t *testing.T, p *Podman, member, pod string) {
	b, err := p.Blueprint(t.Context(), member)
	if err != nil || b.Network != engine.NetworkMode("pod:"+pod) || !b.NetworkKept || len(b.Problems) > 0 {
		t.Errorf("Blueprint = %+v, %v", b, err)
	}
	in, err := p.inspection(t.Context(), member)
	if err != nil {
		t.Fatal(err)
	}
	infra := strings.TrimPrefix(in.HostConfig.NetworkMode, "container:")
	if b, err = p.Blueprint(t.Context(), infra); err != nil || len(b.Problems) != 1 {
		t.Errorf("Blueprint of the pod's own = %+v, %v", b, err)
	}
	if id, err := p.Make(t.Context(), infra, engine.Changes{Name: "second"}); !errors.Is(err, engine.ErrNotReproducible) {
		t.Errorf("Make = %s, %v", id, err)
	}
}

// What cannot be known is refused, with the reason, and nothing is left.
func TestMakeRefuses(t *testing.T) {
	s := open(t)
	for _, tt := range []struct {
		name, want string
		is         error
		make       func(shop) string
	}{
		{"the API made it", "not created by podman's command line", engine.ErrNotReproducible, func(s shop) string { return s.byAPI(`{"image":"` + bedtest.Busybox + `","command":["/bin/sh"]}`) }},
		{"another command made it", "neither by `run` nor by `create`", engine.ErrNotReproducible, func(s shop) string {
			return s.byAPI(`{"image":"` + bedtest.Busybox + `","command":["/bin/sh"],"containerCreateCommand":["podman","play","kube"]}`)
		}},
		{"file descriptors", "file descriptors", engine.ErrNotReproducible, func(s shop) string {
			return s.byAPI(`{"image":"` + bedtest.Busybox + `","command":["/bin/sh"],"containerCreateCommand":["podman","run","--preserve-fds=2","` + bedtest.Busybox + `","/bin/sh"]}`)
		}},
		{"an unknown option", "--no-such-option", engine.ErrNotReproducible, func(s shop) string {
			return s.byAPI(`{"image":"` + bedtest.Busybox + `","command":["/bin/sh"],"containerCreateCommand":["podman","run","--no-such-option\u001b","` + bedtest.Busybox + `","/bin/sh"]}`)
		}},
		{"a unit's control group", "--cgroups=split", engine.ErrNotReproducible, func(s shop) string {
			return s.byAPI(`{"image":"` + bedtest.Busybox + `","command":["/bin/sh"],"containerCreateCommand":["podman","run","--cgroups=split","` + bedtest.Busybox + `","/bin/sh"]}`)
		}},
		{"a command line that is not its own", "Config.Env lacks `A`", engine.ErrDifferent, func(s shop) string {
			return s.byAPI(`{"image":"` + bedtest.Busybox + `","command":["/bin/sh"],"env":{"A":"secret"},"containerCreateCommand":["podman","run","` + bedtest.Busybox + `","/bin/sh"]}`)
		}},
		{"a relative profile", "seccomp profile is relative", engine.ErrNotReproducible, func(s shop) string {
			return s.podman("create", "--security-opt", "seccomp=profile.json", bedtest.Busybox, "/bin/sh")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := s
			s.T = t
			id := tt.make(s)
			b, err := s.p.Blueprint(t.Context(), id)
			if err != nil || (tt.is == engine.ErrNotReproducible) != (len(b.Problems) > 0) || !strings.Contains(strings.Join(b.Problems, ";"), tt.want) && len(b.Problems) > 0 {
				t.Errorf("problems %q, %v; want %q", b.Problems, err, tt.want)
			}
			made, err := s.p.Make(t.Context(), id, engine.Changes{Name: "second"})
			if !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.want) || hint.Of(err) == "" {
				t.Fatalf("Make = %s, %v; want %v: %s", made, err, tt.is, tt.want)
			}
			if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "\x1b") {
				t.Errorf("the error is not fit to be shown: %v", err)
			}
			if c, err := s.p.Inspect(t.Context(), "second"); !errors.Is(err, engine.ErrUnknownContainer) {
				t.Errorf("it left %+v, %v", c, err)
			}
		})
	}
	t.Run("a relative profile, of which there is another", func(t *testing.T) {
		id := s.podman("create", "--security-opt", "seccomp=profile.json", bedtest.Busybox, "/bin/sh")
		if _, err := s.p.Make(t.Context(), id, engine.Changes{Name: "third", Seccomp: filepath.Join(s.dir, "profile.json")}); err != nil {
			t.Errorf("Make: %v", err)
		}
	})
}

// byAPI creates a container of a specification.
func (s shop) byAPI(spec string) string {
	s.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", s.env.Socket())
	}}}
	answer, err := client.Post("http://d/v4.0.0/libpod/containers/create", "application/json", strings.NewReader(spec))
	if err != nil {
		s.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusCreated {
		s.Fatalf("create: %s %s %v", answer.Status, text, err)
	}
	_, rest, _ := strings.Cut(string(text), `"Id":"`)
	return rest[:64]
}
