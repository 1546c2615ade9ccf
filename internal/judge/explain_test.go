// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/whittle-sec/whittle/internal/policy"
)

var update = flag.Bool("update", false, "write testdata anew")

// TestExplain compares what a person reads of a few cases with testdata/explained.txt.
func TestExplain(t *testing.T) {
	injected := imports("/usr/sbin/nginx", "unlink")
	injected.Origin = Origin{Class: Anonymous}
	ofItsOwn := imports("/usr/sbin/nginx", "kill")
	ofItsOwn.Target = Descendant
	kill := New(learned(t, "nginx", "kill"), corpus())
	purge := New(learned(t, "nginx", "unlink"), corpus())
	cases := []struct {
		p *Panel
		q Question
		e Evidence
	}{
		{kill, asks(t, nginxMaster, policy.Reload, "kill", 77, 3), ofItsOwn},
		{kill, asks(t, nginxWorker, policy.Run, "kill", 1, 9), imports("/usr/sbin/nginx", "kill")},
		{purge, asks(t, nginxWorker, policy.Run, "unlink", 0x7fff1000), imports("/usr/sbin/nginx", "unlink")},
		{purge, asks(t, nginxWorker, policy.Run, "unlink", 0x7fff1000), injected},
		{purge, asks(t, nginxWorker, policy.Run, "unshare", 0x10000000), borrowed()},
		{purge, asks(t, nginxWorker, policy.Run, "setuid"), imports("/usr/sbin/nginx", "setuid")},
		{purge, asks(t, "", policy.Run, "splice"), Evidence{}},
	}
	var b strings.Builder
	for _, c := range cases {
		explained := Case{Question: c.q, Evidence: c.e, Decision: c.p.Decide(c.q, c.e)}.Explain()
		b.WriteString(strings.Join(explained, "\n") + "\n\n")
	}
	const file = "testdata/explained.txt"
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("-%s +got, write with -update:\n%s", file, diff)
	}
}

// TestChangedIsTrue: what is said to change the verdict does.
func TestChangedIsTrue(t *testing.T) {
	policies := learned(t, "nginx", "splice")
	q := asks(t, nginxMaster, policy.Run, "splice")
	e := Evidence{Origin: image}
	said := New(policies, nil).Decide(q, e).Changed
	says := func(begins, outcome string) bool {
		return slices.ContainsFunc(said, func(s string) bool { return strings.HasPrefix(s, begins) && strings.HasSuffix(s, outcome) })
	}
	try := func(e Evidence, rules Associations) Verdict { return New(policies, rules).Decide(q, e).Verdict }
	for _, test := range []struct {
		begins string
		now    Verdict
	}{
		{"if the program or one of its libraries", try(imports("/usr/sbin/nginx", "splice"), nil)},
		{"if a strong rule", try(e, certain{})},
		{"if most of the other replicas", try(Evidence{Origin: image, Fleet: Fleet{3, 3}}, nil)},
	} {
		if says(test.begins, outcome[test.now]) != (test.now != Ask) {
			t.Errorf("%q is not as it turns out, %v: %q", test.begins, test.now, said)
		}
	}
	if !slices.Contains(said, "if a person allowed it: whittle policy allow "+policies.Workload.Name()+" splice") {
		t.Errorf("the command is missing: %q", said)
	}
	kill := asks(t, nginxMaster, policy.Run, "kill", 77, 3)
	child := imports("/usr/sbin/nginx", "kill")
	child.Target = Descendant
	accepted := New(learned(t, "nginx", "kill"), corpus()).Decide(kill, child)
	if !slices.Contains(accepted.Changed, "without what import says, a person would be asked") {
		t.Errorf("accepted: %q", accepted.Changed)
	}
}
