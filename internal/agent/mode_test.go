// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/holder"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/store"
	"github.com/whittle-sec/whittle/internal/supervise"
)

// supervising without a holder, and with an injector that fails: nothing can be attached to.
func supervising(t *testing.T, mode api.WorkloadMode, shadow time.Duration) func(*Config) {
	t.Helper()
	return func(c *Config) {
		var both [2]*supervise.Supervisor
		for i := range both {
			s, err := supervise.New(nil)
			if err != nil {
				t.Fatal(err)
			}
			both[i] = s
		}
		c.Supervising = &Supervising{
			Supervisor: both[0], Rootless: both[1], Exe: "/bin/false", Listener: "/run/whittle/seccomp.sock", Default: mode, ShadowTime: shadow,
			Holder: func(ctx context.Context) (*holder.Client, error) { return nil, errors.New("no holder in this test") },
		}
	}
}

func modeOf(t *testing.T, r *rig, ref string) api.ModeState {
	t.Helper()
	states, err := r.client.Modes(t.Context(), ref)
	if err != nil || len(states) != 1 {
		t.Fatalf("Modes(%s) = %+v, %v", ref, states, err)
	}
	return states[0]
}

// A workload goes from learn to shadow when it has settled in a run that missed nothing, and never to enforce while no
// container of it is held: nobody has seen what enforcing would do.
func TestPromotion(t *testing.T) {
	r := start(t, supervising(t, api.ModeAuto, time.Millisecond))
	pid, end := sleeper(t)
	reg := registration("1", pid)
	if err := r.client.Register(t.Context(), reg); err != nil {
		t.Fatal(err)
	}
	id := reg.Container.Workload.ID()
	r.lessons.set(lesson(false, map[policy.Phase][]string{policy.Boot: {"execve"}, policy.Run: {"read"}}))
	until(func() bool { return r.only().Distinct == 2 })
	if got := modeOf(t, r, id); got.Mode != api.ModeAuto || got.Now != api.ModeLearn || got.Set != "default" || got.Next == "" {
		t.Errorf("before it settles: %+v", got)
	}
	r.lessons.set(lesson(true, map[policy.Phase][]string{policy.Boot: {"execve"}, policy.Run: {"read"}}))
	until(func() bool { return modeOf(t, r, id).Now == api.ModeShadow })
	until(r.journaled("web-1 cannot be supervised while it runs"))
	time.Sleep(20 * time.Millisecond) // many times the time of shadow, and many surveys
	if got := modeOf(t, r, id); got.Now != api.ModeShadow || !strings.Contains(got.Next, "waits for a container") {
		t.Errorf("without a filter: %+v", got)
	}
	end()
	until(r.journaled("web-1 ended"))
}

func TestSetMode(t *testing.T) {
	r := start(t, supervising(t, api.ModeLearn, time.Hour))
	pid, _ := sleeper(t)
	reg := registration("1", pid)
	if err := r.client.Register(t.Context(), reg); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []api.WorkloadMode{"", "strict"} {
		if _, err := r.client.SetMode(t.Context(), api.ModeChange{Workload: reg.Container.Workload.ID(), Mode: mode}); err == nil {
			t.Errorf("mode %q was set", mode)
		}
	}
	if _, err := r.client.SetMode(t.Context(), api.ModeChange{Workload: "nothing", Mode: api.ModeEnforce}); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("an unknown workload: %v", err)
	}
	got, err := r.client.SetMode(t.Context(), api.ModeChange{Workload: reg.Container.Workload.ID(), Mode: api.ModeEnforce, Why: "tested"})
	if err != nil || got.Now != api.ModeEnforce || got.Set == "" || got.Set == "default" || got.Why != "tested" {
		t.Errorf("SetMode = %+v, %v", got, err)
	}
	// Nothing is known of it: there is no filter that it could have.
	until(r.journaled("web-1 cannot be supervised while it runs"))
	if c := r.only(); c.Supervision != nil {
		t.Errorf("it is said to be supervised: %+v", c.Supervision)
	}
}

func TestPrepare(t *testing.T) {
	profile := json.RawMessage(`{"defaultAction":"SCMP_ACT_ERRNO"}`)
	learned := lesson(true, map[policy.Phase][]string{policy.Boot: {"execve", "bind"}, policy.Run: {"read", "write"}}).Policy
	learned.Workload = registration("1", 1).Container.Workload
	for _, tt := range []struct {
		name   string
		change func(*api.Preparation)
		mode   api.WorkloadMode
		known  bool
		want   bool
	}{
		{"enforced", nil, api.ModeEnforce, true, true},
		{"in shadow", nil, api.ModeShadow, true, true},
		{"learned from", nil, api.ModeLearn, true, false},
		{"nothing known", nil, api.ModeEnforce, false, false},
		{"no filter wanted", func(p *api.Preparation) { p.Profile, p.Container.Seccomp = nil, engine.SeccompUnconfined }, api.ModeEnforce, true, false},
		{"opted out", func(p *api.Preparation) { p.Container.Labels = map[string]string{ModeKey: "off"} }, api.ModeEnforce, true, false},
		{"opted in", func(p *api.Preparation) { p.Annotations = map[string]string{"whittle.mode": "enforce"} }, api.ModeLearn, true, true},
		{"opted for nonsense", func(p *api.Preparation) { p.Annotations = map[string]string{"whittle.mode": "on"} }, api.ModeLearn, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, supervising(t, tt.mode, time.Hour))
			if tt.known {
				if err := r.store.Save(t.Context(), learned, "test"); err != nil {
					t.Fatal(err)
				}
			}
			p := api.Preparation{Container: registration("1", 0).Container, Profile: profile}
			if tt.change != nil {
				tt.change(&p)
			}
			got, err := r.client.Prepare(t.Context(), p)
			if err != nil || got.Why == "" {
				t.Fatalf("Prepare = %+v, %v", got, err)
			}
			if (len(got.Profile) > 0) != tt.want {
				t.Fatalf("a profile: %v, want %v: %s", len(got.Profile) > 0, tt.want, got.Why)
			}
			if tt.want {
				checkSection(t, r, got.Profile)
			}
		})
	}
}

// checkSection of a container that is to be supervised.
func checkSection(t *testing.T, r *rig, profile []byte) {
	t.Helper()
	var section specs.LinuxSeccomp
	if err := json.Unmarshal(profile, &section); err != nil {
		t.Fatal(err)
	}
	if section.ListenerPath != r.Supervising.Listener || section.DefaultAction == specs.ActNotify {
		t.Errorf("listener %q, default action %s", section.ListenerPath, section.DefaultAction)
	}
	action := map[string]specs.LinuxSeccompAction{}
	for _, s := range section.Syscalls {
		for _, name := range s.Names {
			action[name] = s.Action
		}
	}
	for name, want := range map[string]specs.LinuxSeccompAction{
		"bind": specs.ActNotify, "execve": specs.ActNotify, "bpf": specs.ActNotify, "write": specs.ActAllow, "read": specs.ActAllow,
	} {
		if action[name] != want {
			t.Errorf("%s: %s, want %s", name, action[name], want)
		}
	}
	if tok, ours := r.tokenOf(profile); !ours || tok.Workload == "" || tok.Seq == 0 {
		t.Errorf("the agent does not know its own profile: %+v, %v", tok, ours)
	}
	// Nobody else's.
	for _, other := range []string{`{}`, `{"listenerPath":"/elsewhere","listenerMetadata":` + strings.Split(string(profile), `"listenerMetadata":`)[1],
		`{"listenerPath":"` + r.Supervising.Listener + `","listenerMetadata":"{}"}`, `nonsense`} {
		if _, ours := r.tokenOf([]byte(other)); ours {
			t.Errorf("taken for its own: %.60s", other)
		}
	}
}

// A container that was started under a filter of ours has calls that wait for an answer, whatever its mode is by then.
func TestOffAnswersWhatIsHeld(t *testing.T) {
	r := start(t, supervising(t, api.ModeEnforce, time.Hour))
	learned := lesson(true, map[policy.Phase][]string{policy.Boot: {"execve"}, policy.Run: {"read"}}).Policy
	reg := registration("1", 0)
	learned.Workload = reg.Container.Workload
	if err := r.store.Save(t.Context(), learned, "test"); err != nil {
		t.Fatal(err)
	}
	p, err := r.client.Prepare(t.Context(), api.Preparation{Container: reg.Container, Profile: json.RawMessage(`{"defaultAction":"SCMP_ACT_ERRNO"}`)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.client.SetMode(t.Context(), api.ModeChange{Workload: reg.Container.Workload.ID(), Mode: api.ModeOff}); err != nil {
		t.Fatal(err)
	}
	for i, profile := range []json.RawMessage{nil, p.Profile} {
		pid, _ := sleeper(t)
		reg := registration([]string{"plain", "held"}[i], pid)
		reg.Profile = profile
		if err := r.client.Register(t.Context(), reg); err != nil {
			t.Fatal(err)
		}
	}
	if c := r.only(); c.ID != "held" || c.Supervision == nil || c.Supervision.Mode != api.ModeOff {
		t.Errorf("known: %+v, supervision %+v; want the one that is held, with everything let through", c, c.Supervision)
	}
}

// An engine may fail to create a container that was prepared: its record does not wait for it for ever.
func TestUnbornAreForgotten(t *testing.T) {
	db, err := store.Open(t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	for _, v := range []store.Supervised{
		{Engine: "podman", ID: "unborn", How: "start", Fingerprint: "f", Boot: bootID()},
		{Engine: "podman", ID: "alive", How: "attach", Fingerprint: "f", Boot: bootID(), PID: os.Getpid()},
	} {
		if _, err := db.IntendSupervision(t.Context(), v); err != nil {
			t.Fatal(err)
		}
	}
	held := supervising(t, api.ModeLearn, time.Hour)
	start(t, func(c *Config) {
		held(c)
		c.Store = Stored{db}
		c.Now = func() time.Time { return time.Now().Add(2 * unborn) }
	})
	until(func() bool {
		all, err := db.Supervised(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(all) == 1 && all[0].ID == "alive"
	})
}
