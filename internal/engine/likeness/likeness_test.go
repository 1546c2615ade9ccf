// SPDX-License-Identifier: Apache-2.0

package likeness

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/engine"
)

var some = Engine{Same: []string{"Image", "Path", "Args"}, Apart: []string{"Config.CreateCommand", "Config.Annotations.a.b"}, Env: []string{"HOSTNAME"}}

func TestDifferences(t *testing.T) {
	const volume = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for _, tt := range []struct {
		name, like, made string
		c                engine.Changes
		want             string // all of them, with "; "
	}{
		{name: "nothing", like: `{}`, made: `{}`},
		{name: "zero and nothing", like: `{"HostConfig":{"A":0,"B":[],"C":{"x":""},"D":false}}`, made: `{"Config":null,"HostConfig":{"A":null}}`},
		{name: "a value", like: `{"Config":{"User":"1"}}`, made: `{"Config":{"User":"0"}}`, want: "Config.User was `1` and is `0`"},
		{name: "a field nobody knows", like: `{"HostConfig":{"New":{"Deep":1}}}`, made: `{"HostConfig":{}}`, want: "HostConfig.New.Deep was `1` and is `null`"},
		{name: "a big number", like: `{"HostConfig":{"Memory":9007199254740993}}`, made: `{"HostConfig":{"Memory":9007199254740992}}`, want: "HostConfig.Memory was `9007199254740993` and is `9007199254740992`"},
		{name: "order of a set", like: `{"Config":{"Env":["A=1","B=2"]}}`, made: `{"Config":{"Env":["B=2","A=1","HOSTNAME=x"]}}`},
		{name: "a variable", like: `{"Config":{"Env":["A=secret"]}}`, made: `{"Config":{"Env":["A=other"]}}`, want: "Config.Env has `A` besides; Config.Env lacks `A`"},
		{name: "twice in a set", like: `{"Config":{"Env":["A=1"]}}`, made: `{"Config":{"Env":["A=1","A=1"]}}`, want: "Config.Env has `A` besides"},
		{name: "order of a list", like: `{"Args":["a","b"]}`, made: `{"Args":["b","a"]}`, want: "Args was `[\"a\",\"b\"]` and is `[\"b\",\"a\"]`"},
		{name: "apart", like: `{"Id":"a","Name":"x","Config":{"CreateCommand":["x"],"Annotations":{"a.b":"1"}}}`, made: `{"Config":{"Annotations":{"a.b":"2"}}}`},
		{name: "hostnames", like: `{"Id":"0123456789abcd","Config":{"Hostname":"0123456789ab"}}`, made: `{"Id":"abcdefabcdefab","Config":{"Hostname":"abcdefabcdef"}}`},
		{name: "a hostname", like: `{"Id":"0123456789abcd","Config":{"Hostname":"web"}}`, made: `{"Id":"abcdefabcdefab","Config":{"Hostname":"abcdefabcdef"}}`, want: "Config.Hostname was `web` and is `null`"},
		{name: "networks", like: `{"NetworkSettings":{"Networks":{"a":{"IP":"1"}}}}`, made: `{"NetworkSettings":{"Networks":{"b":{}}}}`, want: "Networks was `[\"a\"]` and is `[\"b\"]`"},
		{name: "options of a mount", like: `{"HostConfig":{"Binds":["a:/b:rw,x"]},"Mounts":[{"Options":["a","b"]}]}`, made: `{"HostConfig":{"Binds":["a:/b:x,rw"]},"Mounts":[{"Options":["b","a"]}]}`},
		{name: "an anonymous volume", like: `{"Mounts":[{"Type":"volume","Name":"` + volume + `","Destination":"/d"}]}`, made: `{"HostConfig":{"Binds":["` + volume + `:/d"]},"Mounts":[{"Type":"volume","Name":"` + volume + `","Destination":"/d","Mode":"z"}]}`},
		{name: "another anonymous volume", like: `{"Mounts":[{"Type":"volume","Name":"` + volume + `","Destination":"/d"}]}`, made: `{"Mounts":[]}`, want: "Mounts lacks `{\"Destination\":\"/d\",\"Name\":\"" + volume + "\",\"Type\":\"volume\"}`"},
		{name: "a profile that was asked for", like: `{"HostConfig":{"SecurityOpt":["x"]}}`, made: `{"HostConfig":{"SecurityOpt":["seccomp=/p","x"]}}`, c: engine.Changes{Seccomp: "/p"}},
		{name: "a profile that was not set", like: `{"HostConfig":{"SecurityOpt":["seccomp=/q"]}}`, made: `{"HostConfig":{}}`, c: engine.Changes{Seccomp: "/p"}, want: "the seccomp profile was not set"},
		{name: "a profile nobody asked for", like: `{"HostConfig":{}}`, made: `{"HostConfig":{"SecurityOpt":["seccomp=unconfined"]}}`, want: "HostConfig.SecurityOpt has `seccomp=unconfined` besides"},
		{name: "a command", like: `{"Path":"/a","Args":["b"]}`, made: `{"Path":"/a","Args":["c"]}`, c: engine.Changes{Command: []string{"c"}}},
		{name: "another command", like: `{"Path":"/a","Args":["b"]}`, made: `{"Path":"/a","Args":["b"]}`, c: engine.Changes{Command: []string{"c"}}, want: "it runs `/a b`, not `c`"},
		{name: "variables", like: `{"Config":{"Env":["A=1","B=1"]}}`, made: `{"Config":{"Env":["A=2","B=1"]}}`, c: engine.Changes{Env: map[string]string{"A": "2"}}},
		{name: "no variable", like: `{"Config":{}}`, made: `{"Config":{"Env":["A=3"]}}`, c: engine.Changes{Env: map[string]string{"A": "2"}}, want: "the variable `A` was not set"},
		{name: "labels", like: `{"Config":{"Labels":{"a":"1"}}}`, made: `{"Config":{"Labels":{"a":"2","b":"3"}}}`, c: engine.Changes{Labels: map[string]string{"a": "2"}}, want: "Config.Labels.b was `null` and is `3`"},
		{name: "a mount", like: `{}`, made: `{"HostConfig":{"Binds":["/s:/d:ro"]},"Mounts":[{"Destination":"/d","Source":"/s","RW":false}]}`, c: engine.Changes{Mounts: []engine.Mount{{Source: "/s", Destination: "/d", ReadOnly: true}}}},
		{name: "a mount that can be written to", like: `{}`, made: `{"Mounts":[{"Destination":"/d","Source":"/s","RW":true}]}`, c: engine.Changes{Mounts: []engine.Mount{{Source: "/s", Destination: "/d", ReadOnly: true}}}, want: "nothing like what was asked for is mounted at `/d`"},
		{name: "no restart", like: `{"HostConfig":{"RestartPolicy":{"Name":"always","MaximumRetryCount":3}}}`, made: `{"HostConfig":{"RestartPolicy":{"Name":"no"}}}`, c: engine.Changes{NoRestart: true}},
		{name: "a restart that nobody wants", like: `{"HostConfig":{"RestartPolicy":{"Name":"always"}}}`, made: `{"HostConfig":{"RestartPolicy":{"Name":"always"}}}`, c: engine.Changes{NoRestart: true}, want: "it has a restart policy still: `always`"},
		{name: "another image", like: `{"Image":"a","Config":{"User":"1","Tty":true}}`, made: `{"Image":"b","Config":{"User":"2"}}`, c: engine.Changes{Image: "b"}, want: "Config.Tty was `true` and is `null`"},
		{name: "hostile", like: `{"Id":{},"Config":{"Env":{"a":1},"Labels":[1]},"Mounts":{"a":1},"HostConfig":[1],"NetworkSettings":7}`, made: `{"Id":[],"Config":7,"Mounts":[7],"HostConfig":{"Binds":[1,"\u001b:"]}}`, c: engine.Changes{Seccomp: "x", Env: map[string]string{"a": "b"}, Mounts: []engine.Mount{{}}, Image: "x", Command: []string{"x"}}, want: "*"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Differences(json.RawMessage(tt.like), json.RawMessage(tt.made), tt.c, some)
			if text := strings.Join(got, "; "); err != nil || text != tt.want && tt.want != "*" {
				t.Errorf("%s, %v; want %s", text, err, tt.want)
			}
		})
	}
	for _, bad := range []string{"", "[]", "7", "{"} {
		if got, err := Differences(json.RawMessage(bad), json.RawMessage(`{}`), engine.Changes{}, some); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

func FuzzDifferences(f *testing.F) {
	f.Add(`{"Config":{"Env":["A=1"],"Labels":{"a":"b"}},"Mounts":[{"Destination":"/d"}]}`, `{"HostConfig":{"Binds":["a:/d:ro"]}}`)
	c := engine.Changes{Seccomp: "/p", Env: map[string]string{"A": "1"}, Labels: map[string]string{"a": "b"}, Mounts: []engine.Mount{{Source: "/s", Destination: "/d"}}, Command: []string{"x"}}
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, changes := range []engine.Changes{{}, c, {Image: "x"}} {
			got, err := Differences(json.RawMessage(a), json.RawMessage(b), changes, some)
			if len(got) > most+1 || err != nil && got != nil {
				t.Errorf("%q, %v", got, err)
			}
			for _, d := range got {
				if strings.ContainsFunc(d, func(r rune) bool { return r < ' ' || r > '~' }) {
					t.Errorf("not printable: %q", d)
				}
			}
		}
		if got, err := Differences(json.RawMessage(a), json.RawMessage(a), engine.Changes{}, some); err == nil && len(got) > 0 {
			t.Errorf("%s differs from itself: %q", a, got)
		}
	})
}
