// SPDX-License-Identifier: Apache-2.0

package testbed

import "testing"

func TestOverride(t *testing.T) {
	settings := []setting{{"engine", "runtime", `"crun"`}, {"engine", "hooks_dir", `["/h"]`}, {"network", "x", `"y"`}}
	for _, tt := range []struct{ name, conf, want string }{
		{"nothing", "", "[engine]\nruntime = \"crun\"\nhooks_dir = [\"/h\"]\n[network]\nx = \"y\"\n"},
		{
			"kept and replaced",
			"# a\n[containers]\nruntime = \"kept\"\ncaps = [\n  \"A\",\n]\n\n[engine]\n  runtime=\"runc\"\nhooks_dir = [\n\"/a\",\n\"/b\"\n]\nother = 1\n[engine.runtimes]\nruntime = \"kept\"\n",
			"[containers]\nruntime = \"kept\"\ncaps = [\n\"A\",\n]\n[engine]\nruntime = \"crun\"\nhooks_dir = [\"/h\"]\nother = 1\n[engine.runtimes]\nruntime = \"kept\"\n[network]\nx = \"y\"\n",
		},
		{"on one line", "[engine]\nhooks_dir = [\"/a\"]\nother = 1\n", "[engine]\nruntime = \"crun\"\nhooks_dir = [\"/h\"]\nother = 1\n[network]\nx = \"y\"\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := override(tt.conf, settings); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}
