// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/engine/sockethttp"
)

const someID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func documents(t testing.TB, text string) (inspection, object) {
	t.Helper()
	var in inspection
	if err := json.Unmarshal([]byte(text), &in); err != nil {
		t.Fatal(err)
	}
	doc, err := decode([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return in, doc
}

func text(t testing.TB, v any) string {
	t.Helper()
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// Names of one container are not handed on, and what Docker refuses of one that shares a network is left out.
func TestNames(t *testing.T) {
	for _, tt := range []struct{ name, like, config, host string }{
		{"its id", `{"Id":"` + someID + `","Config":{"Hostname":"0123456789ab","Domainname":"d"},"HostConfig":{}}`, `{"Domainname":"d"}`, `{"ContainerIDFile":""}`},
		{"chosen", `{"Id":"` + someID + `","Config":{"Hostname":"web"},"HostConfig":{"ContainerIDFile":"/x"}}`, `{"Hostname":"web"}`, `{"ContainerIDFile":""}`},
		{"the host's", `{"Config":{"Hostname":"vm"},"HostConfig":{"UTSMode":"host"}}`, `{}`, `{"ContainerIDFile":"","UTSMode":"host"}`},
		{"another's", `{"Config":{"Hostname":"x","Domainname":"d","ExposedPorts":{"80/tcp":{}}},"HostConfig":{"NetworkMode":"container:a"}}`, `{}`, `{"ContainerIDFile":"","NetworkMode":"container:a"}`},
		{"links", `{"Config":{},"HostConfig":{"Links":["/db:/web/database","/x:y",7]}}`, `{}`, `{"ContainerIDFile":"","Links":["db:database","/x:y",7]}`},
	} {
		in, doc := documents(t, tt.like)
		config, host := doc.object("Config"), doc.object("HostConfig")
		names(in, config, host)
		if text(t, config) != tt.config || text(t, host) != tt.host {
			t.Errorf("%s: %s %s, want %s %s", tt.name, text(t, config), text(t, host), tt.config, tt.host)
		}
	}
}

func TestPublished(t *testing.T) {
	for _, tt := range []struct{ name, like, want string }{
		{"none", `{}`, `{}`},
		{"fixed", `{"HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"","HostPort":"8080"}]}},"NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"::","HostPort":"8080"}]}}}`, `{"80/tcp":[{"HostIP":"","HostPort":"8080"}]}`},
		{"by chance", `{"HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"","HostPort":""}]}},"NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"32768"},{"HostIp":"::","HostPort":"32768"}]}}}`, `{"80/tcp":[{"HostIP":"","HostPort":"32768"}]}`},
		{"by chance, at an address", `{"HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"0"}]}},"NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"32768"}]}}}`, `{"80/tcp":[{"HostIP":"127.0.0.1","HostPort":"32768"}]}`},
		{"by chance, and it does not run", `{"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":""}]}}}`, `{"80/tcp":[{"HostIP":"","HostPort":""}]}`},
		{"all that are exposed", `{"HostConfig":{"PublishAllPorts":true},"NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"32768"}],"81/tcp":null}}}`, `{"80/tcp":[{"HostIP":"","HostPort":"32768"}]}`},
	} {
		in, _ := documents(t, tt.like)
		if got := text(t, in.published()); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestEndpoints(t *testing.T) {
	in, doc := documents(t, `{"Id":"`+someID+`","Name":"/first","HostConfig":{"NetworkMode":"one"},"NetworkSettings":{"Networks":{
		"one":{"IPAMConfig":{"IPv4Address":"10.0.0.7"},"Aliases":["web","0123456789ab"],"MacAddress":"02:42:0a:00:00:07","IPAddress":"10.0.0.7","EndpointID":"x"},
		"two":{"IPAMConfig":null,"Aliases":null,"DriverOpts":{"a":"b"},"IPAddress":"10.0.1.8","GlobalIPv6Address":"fd00::8"},
		"bridge":{"IPAMConfig":{},"IPAddress":"172.17.0.2"}}}}`)
	if first, _, ask := endpoints(in, doc, engine.AddressAny); text(t, first) != `{"one":{"Aliases":["web","first"]}}` || len(ask) > 0 {
		t.Errorf("with any address: first %s, asked %s", text(t, first), text(t, ask))
	}
	if _, _, ask := endpoints(in, doc, engine.AddressAsMade); len(ask) > 0 {
		t.Errorf("as it was made: asked %s", text(t, ask))
	}
	first, rest, ask := endpoints(in, doc, engine.AddressKeep)
	if want := `{"two":{"Aliases":["first"],"DriverOpts":{"a":"b"},"IPAMConfig":{"IPv4Address":"10.0.1.8","IPv6Address":"fd00::8"}}}`; text(t, ask) != want {
		t.Errorf("asked %s, want %s", text(t, ask), want)
	}
	if want := `{"one":{"Aliases":["web","first"],"IPAMConfig":{"IPv4Address":"10.0.0.7"}}}`; text(t, first) != want {
		t.Errorf("first %s, want %s", text(t, first), want)
	}
	if want := `{"bridge":{},"two":{"Aliases":["first"],"DriverOpts":{"a":"b"}}}`; text(t, rest) != want {
		t.Errorf("rest %s, want %s", text(t, rest), want)
	}
	for _, mode := range []string{"host", "none", "container:x"} {
		in.HostConfig.NetworkMode = mode
		if first, rest, ask := endpoints(in, doc, engine.AddressKeep); len(first)+len(rest)+len(ask) > 0 {
			t.Errorf("%s: %v %v %v", mode, first, rest, ask)
		}
	}
}

func TestWithout(t *testing.T) {
	_, config := documents(t, `{"Cmd":["a"],"Entrypoint":["e"],"User":"1","Env":["A=1","B=2"],"Labels":{"a":"1","b":"2"},"WorkingDir":"/"}`)
	_, image := documents(t, `{"Cmd":["b"],"Entrypoint":["e"],"User":"1","Env":["A=1","B=3"],"Labels":{"a":"1","b":"3"}}`)
	without(config, image)
	_, want := documents(t, `{"Cmd":["a"],"Env":["B=2"],"Labels":{"b":"2"},"WorkingDir":"/"}`)
	if !reflect.DeepEqual(config, want) {
		t.Errorf("%s, want %s", text(t, config), text(t, want))
	}
}

func TestDecode(t *testing.T) {
	for _, bad := range []string{"", "[]", "7", "{"} {
		if o, err := decode([]byte(bad)); err == nil {
			t.Errorf("decode(%q) = %v", bad, o)
		}
	}
}

// FuzzDraft: what Docker says is taken apart without a panic, and a change that was made is there.
func FuzzDraft(f *testing.F) {
	f.Add(`{"Id":"` + someID + `","Config":{"Env":["A=1"],"Labels":{}},"HostConfig":{"Binds":["a:/b"],"Mounts":[{"Target":"/c"}],"Links":["a:b"],"SecurityOpt":["seccomp=x"]},"Mounts":[{"Type":"volume","Name":"` + someID + `","Destination":"/c"}],"NetworkSettings":{"Networks":{"x":{"Aliases":["y"]}}}}`)
	f.Fuzz(func(t *testing.T, text string) {
		var in inspection
		doc, err := decode([]byte(text))
		if err != nil || json.Unmarshal([]byte(text), &in) != nil {
			return
		}
		config, host := doc.object("Config"), doc.object("HostConfig")
		if config == nil || host == nil {
			return
		}
		sockethttp.Ports(in.published())
		in.addresses()
		without(config, doc.object("Image"))
		names(in, config, host)
		anonymous(in, host)
		err = change(config, host, engine.Changes{Seccomp: engine.SeccompUnconfined, Env: map[string]string{"A": "3"}, Labels: map[string]string{"l": "m"}, Mounts: []engine.Mount{{Source: "/s", Destination: "/d"}}})
		if err != nil {
			t.Fatal(err)
		}
		endpoints(in, doc, engine.AddressKeep)
		count := 0
		for _, v := range host.list("SecurityOpt") {
			if s, _ := v.(string); strings.HasPrefix(s, "seccomp") && len(s) > 7 && (s[7] == '=' || s[7] == ':') {
				count++
			}
		}
		if env := config.list("Env"); env[len(env)-1] != "A=3" || config.object("Labels").text("l") != "m" || count != 1 {
			t.Errorf("%v %v", config, host)
		}
	})
}
