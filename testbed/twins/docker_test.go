// SPDX-License-Identifier: Apache-2.0

package twins

import (
	"strings"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/testbed/bedtest"
	"github.com/whittle-sec/whittle/testbed/load"
	"github.com/whittle-sec/whittle/testbed/services"
)

// TestDocker: the same archives serve in Docker, whose containers have another network than this process.
func TestDocker(t *testing.T) {
	testenv.NeedDocker(t)
	testenv.NeedGCC(t)
	d := bedtest.UpDocker(t, nil)
	twin := built(t, Vulnd)
	if err := twin.LoadDocker(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		image Image
		shell bool
	}{{"production", twin.Production, true}, {"oracle", twin.Oracle, false}} {
		for _, exploit := range twin.Exploits() {
			t.Run(test.name+"/"+exploit.Name, func(t *testing.T) {
				docker := func(args ...string) string {
					out, err := d.Run(t.Context(), args...)
					if err != nil {
						t.Fatal(err)
					}
					return out
				}
				docker(append([]string{"run", "--detach", "--network", "host", "--name", "twin", "--env", "ASAN_OPTIONS=detect_leaks=0", test.image.Name}, twin.Command(8080)...)...)
				defer docker("rm", "--force", "twin")
				target := load.Target{Addr: "127.0.0.1:8080", NetNS: "/proc/" + docker("inspect", "--format", "{{.State.Pid}}", "twin") + "/ns/net"}
				if err := services.Eventually(t.Context(), 30*time.Second, func() error { return target.Ask(t.Context(), twin.Talk()) }); err != nil {
					t.Fatal(err)
				}
				for _, talk := range twin.Honest() {
					if err := target.Ask(t.Context(), talk); err != nil {
						t.Error(err)
					}
				}
				if shell, err := exploit.Run(t.Context(), target); shell != test.shell {
					t.Errorf("shell: %v (%v), want %v", shell, err, test.shell)
				}
				// What it says on stderr is not among what Run returns.
				said, err := d.Enter(t.Context(), "sh", "-c", `exec docker --host "$0" logs twin 2>&1`, "unix://"+d.Socket())
				if err != nil || strings.Contains(said, exploit.Reported) == test.shell {
					t.Errorf("it says %q (%v)", said, err)
				}
			})
		}
	}
}
