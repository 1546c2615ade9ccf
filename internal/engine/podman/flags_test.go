// SPDX-License-Identifier: Apache-2.0

package podman

import (
	"reflect"
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/engine"
)

const someHelp = `Create but do not start a container

Usage:
  podman create [options] IMAGE [COMMAND [ARG...]]

Examples:
  podman create -t -i --name myctr alpine ls

Options:
      --cgroups string                           control (default "enabled")
  -d, --detach                                   Run container in background
      --detach-keys [a-Z]                        Override the key sequence
  -e, --env stringArray                          Set environment variables
      --env-file strings                         Read in a file
      --env-host                                 Use all current host environment variables
      --entrypoint string                        Overwrite the default ENTRYPOINT of the image
      --help                                     
  -i, --interactive                              Keep STDIN open even if not attached
  -l, --label stringArray                        Set metadata on container
  -m, --memory <number>[<unit>]                  Memory limit
      --mount stringArray                        Attach a filesystem mount to the container
      --name string                              Assign a name to the container
      --network stringArray                      Connect
      --pod string                               Run container in an existing pod
      --privileged                               Give extended privileges to container
  -p, --publish strings                          Publish a container's port
      --rm                                       Remove container (and pod if created) after exit
      --security-opt stringArray                 Security Options
      --tmpfs tmpfs                              Mount a temporary filesystem (tmpfs) into a container
  -t, --tty                                      Allocate a pseudo-TTY
  -v, --volume stringArray                       Bind mount a volume into the container
                                                 --not-a-flag string

Note: --neither
`

func someGrammar() grammar {
	global := parseHelp("Options:\n  -c, --connection string   x\n      --log-level string   x\n  -r, --remote    x\n      --url string   x\n  -v, --version   x\n")
	f := parseHelp(someHelp)
	return grammar{program: "podman", global: global, command: f, remote: f}
}

func TestParseHelp(t *testing.T) {
	f := parseHelp(someHelp)
	for name, value := range map[string]bool{"--cgroups": true, "--detach": false, "-d": false, "--detach-keys": true, "--help": false, "-m": true, "--tmpfs": true, "--rm": false} {
		if is, ok := f[name]; !ok || is.value != value {
			t.Errorf("%s: %+v, %v; want value %v", name, is, ok, value)
		}
	}
	for _, name := range []string{"--name myctr", "--neither", "-t, "} {
		if is, ok := f[name]; ok {
			t.Errorf("%s is %+v", name, is)
		}
	}
}

func TestParse(t *testing.T) {
	type pairs = [][2]string
	for _, tt := range []struct {
		name, argv string // by spaces
		want       pairs
		image      string
		args       []string
	}{
		{"nothing", "podman run img", nil, "img", []string{}},
		{"separate", "podman run -d --name a -e A=1 --env B img x -d", pairs{{"detach", "true"}, {"name", "a"}, {"env", "A=1"}, {"env", "B"}}, "img", []string{"x", "-d"}},
		{"joined", "podman run -dit -p8080:80 -eA=1 -l=a=b img", pairs{{"detach", "true"}, {"interactive", "true"}, {"tty", "true"}, {"publish", "8080:80"}, {"env", "A=1"}, {"label", "a=b"}}, "img", []string{}},
		{"switches", "podman create --rm=false --privileged=true -ti=false -- img", pairs{{"rm", "false"}, {"privileged", "true"}, {"tty", "true"}, {"interactive", "false"}}, "img", []string{}},
		{"last letter takes the next", "podman run -ie A=1 img", pairs{{"interactive", "true"}, {"env", "A=1"}}, "img", []string{}},
		{"a value like an option", "podman run --name --rm --entrypoint= img", pairs{{"name", "--rm"}, {"entrypoint", ""}}, "img", []string{}},
		{"global", "/usr/bin/podman --remote --url unix:///x -c y container run --log-level debug --rm img", pairs{{"rm", "true"}}, "img", []string{}},
		{"alias", "podman run --net host img", pairs{{"network", "host"}}, "img", []string{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := someGrammar().parse(strings.Fields(tt.argv))
			var got pairs
			for _, o := range c.options {
				got = append(got, [2]string{o.name, o.text})
			}
			if err != nil || !reflect.DeepEqual(got, tt.want) || c.image != tt.image || !reflect.DeepEqual(c.args, tt.args) {
				t.Errorf("%s: %v %q %q, %v; want %v %q %q", tt.argv, got, c.image, c.args, err, tt.want, tt.image, tt.args)
			}
		})
	}
	for _, argv := range []string{"", "podman", "podman run", "podman run --name", "podman run -e", "podman run -x img", "podman run --no-such img", "podman play kube", "podman run -- ", "podman --no run img", "podman run --" + strings.Repeat("x", maxArgs)} {
		if c, err := someGrammar().parse(strings.Fields(argv)); err == nil {
			t.Errorf("%.80q = %+v", argv, c)
		}
	}
}

func TestAnyPort(t *testing.T) {
	for text, want := range map[string]bool{
		"80": true, "80/udp": true, "8080:80": false, "127.0.0.1::80": true, "127.0.0.1:1:80": false, "[::1]:1:80": false, "[::1]::80": true, "0:80": true, "7000-7002": true, "": true, "]": true,
	} {
		if got := anyPort(text); got != want {
			t.Errorf("anyPort(%q) = %v, want %v", text, got, want)
		}
	}
}

// FuzzEdit: whatever command line a container claims to come from, the edited one is understood as what was meant, has the one
// name that was asked for, and nothing that would detach, replace or write files.
func FuzzEdit(f *testing.F) {
	for _, argv := range []string{
		"podman run -d --name a -e A=1 -v ./x:/y --rm img x", "podman run --security-opt seccomp=x --mount type=volume,dst=/anon -v /anon img",
		"podman --url x create -dit -p80 --pod new:x --env-file y img", "podman run --entrypoint [] --env-host -- img",
	} {
		f.Add(strings.ReplaceAll(argv, " ", "\x00"), "/anon", "A=2\x00B=3")
	}
	g := someGrammar()
	f.Fuzz(func(t *testing.T, argv, destination, env string) {
		c, err := g.parse(strings.Split(argv, "\x00"))
		if err != nil {
			return
		}
		var in inspection
		in.Pod = "pod"
		in.Config.Env = strings.Split(env, "\x00")
		in.Mounts = append(in.Mounts, struct {
			Type, Name, Source, Destination string
			RW                              bool
			Options                         []string
		}{Type: "volume", Name: strings.Repeat("a", 64), Destination: destination})
		entrypoint := []string{"/e", "-x"}
		e := editor{in: in, changes: engine.Changes{Name: "successor", Seccomp: "/p.json", Entrypoint: &entrypoint, Env: map[string]string{"A": "3"}}, exists: func(string) bool { return false }}
		out, _ := e.edit(c)
		again := append([]string{"podman"}, out.argv("/s")...)
		if out.image == "" || out.image[0] == '-' {
			return // refused by the caller
		}
		all := g
		all.command = all.command.with(flags{"--pull": {"pull", true}, "--remote": {"remote", false}})
		got, err := all.parse(again)
		if err != nil || got.image != out.image || !reflect.DeepEqual(append([]string{}, got.args...), append([]string{}, out.args...)) {
			t.Fatalf("%q is understood as %+v, %v; want %+v", again, got, err, out)
		}
		count := make(map[string]int)
		for _, o := range got.options {
			count[o.name]++
			seccomp := strings.HasPrefix(o.text, "seccomp=") || strings.HasPrefix(o.text, "seccomp:") // podman refuses what has neither
			if o.name == "security-opt" && seccomp && o.text != "seccomp=/p.json" {
				t.Errorf("%q has another profile", again)
			}
		}
		if name, _ := got.is("name"); name != "successor" || count["name"] != 1 || count["entrypoint"] != 1 || count["detach"] > 0 || count["cidfile"] > 0 || count["env-host"] > 0 {
			t.Errorf("%q", again)
		}
	})
}
