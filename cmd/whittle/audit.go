// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/cve"
	"github.com/whittle-sec/whittle/internal/filter"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// native is the ABI of this host's own programs.
var native, _ = syscalls.Native(runtime.GOARCH)

// score of a profile. docs/formats.md describes its JSON.
type score struct {
	filter.Audit
	Neutralised        []string `json:"neutralised"`
	Exposed            []string `json:"exposed"`
	DefaultNeutralised int      `json:"default_neutralised"`
}

func newAudit(a *app) *cobra.Command {
	var least int
	var phases []string
	cmd := &cobra.Command{
		Use:   "audit PROFILE",
		Short: "score a seccomp profile: calls, and kernel CVEs that it neutralises",
		Long: `Score a seccomp profile against the engine's default: how many calls it allows, and which known kernel CVEs cannot be
reached through it. PROFILE is an OCI or Docker profile, a SeccompProfile, or a policy of Whittle's.`,
		Example: `  whittle audit profile.json
  whittle audit policy.json --phase run --phase stop
  whittle audit profile.json --min-neutralised 80     # exit status 1 if it neutralises fewer: for CI`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			sel, err := selection(phases, "")
			if err != nil {
				return err
			}
			profile, err := readProfile(args[0], sel, len(phases) > 0)
			if err != nil {
				return err
			}
			s, err := scoreOf(profile)
			if err != nil {
				return err
			}
			if a.json {
				err = a.printJSON(s)
			} else {
				err = printScore(a.out, s)
			}
			if err == nil && len(s.Neutralised) < least {
				a.say("%d CVEs neutralised, fewer than the %d asked for", len(s.Neutralised), least)
				return exitCode(exitError)
			}
			return err
		},
	}
	cmd.Flags().IntVar(&least, "min-neutralised", 0, "exit with status 1 if fewer CVEs are neutralised")
	cmd.Flags().StringSliceVar(&phases, "phase", nil, "only these phases of a policy (boot, run, reload, stop)")
	return cmd
}

// selection of phases and lanes by name.
func selection(phases []string, lane string) (sel policy.Selection, err error) {
	for _, name := range phases {
		p, err := policy.ParsePhase(name)
		if err != nil {
			return sel, usageError{hint.Add(err, "the phases are boot, run, reload and stop")}
		}
		sel.Phases = append(sel.Phases, p)
	}
	switch lane {
	case "", "service":
	case "exec":
		sel.Exec = true
	default:
		return sel, usageError{hint.Add(fmt.Errorf("unknown lane %q", lane), "the lanes are service, which is always exported, and exec")}
	}
	return sel, nil
}

// readProfile of any of the formats; of a policy, the profile that it would be exported as.
func readProfile(path string, sel policy.Selection, phases bool) (*specs.LinuxSeccomp, error) {
	text, err := readBounded(path, filter.MaxProfileSize)
	if err != nil {
		return nil, err
	}
	if isPolicy(text) {
		p, err := parsePolicy(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return profileFor(p, sel)
	}
	if phases {
		return nil, usageError{fmt.Errorf("--phase: %s is not a policy, and only policies have phases", path)}
	}
	profile, err := filter.Parse(text, native)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return profile, nil
}

// profileFor a part of a policy.
func profileFor(p policy.Policy, sel policy.Selection) (*specs.LinuxSeccomp, error) {
	rules, err := filter.FromPolicy(p, sel)
	if err != nil {
		return nil, err
	}
	return filter.OCI(rules)
}

// readBounded reads a regular file or a pipe of at most limit bytes; "-" is standard input.
func readBounded(path string, limit int64) ([]byte, error) {
	f := os.Stdin
	if path != "-" {
		var err error
		if f, err = os.Open(path); err != nil {
			return nil, fmt.Errorf("open profile: %w", err)
		}
		defer f.Close()
	}
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read profile: %w", err)
	}
	if int64(len(text)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return text, nil
}

func scoreOf(profile *specs.LinuxSeccomp) (score, error) {
	audit, err := filter.NewAudit(profile, native)
	if err != nil {
		return score{}, err
	}
	standard, err := filter.DefaultProfile(native)
	if err != nil {
		return score{}, err
	}
	s := score{Audit: audit}
	neutralised, exposed := cves(profile)
	s.Neutralised, s.Exposed = ids(neutralised), ids(exposed)
	neutralised, _ = cves(standard)
	s.DefaultNeutralised = len(neutralised)
	return s, nil
}

// cves that a profile neutralises. What it allows with some arguments counts as allowed: whether the arguments that a CVE
// needs are among them is answered by the policy, not by its export.
func cves(profile *specs.LinuxSeccomp) (neutralised, exposed []cve.CVE) {
	allowed, checked := filter.Allowed(profile, native)
	var abis []syscalls.ABI
	for abi := range allowed {
		abis = append(abis, abi)
	}
	slices.Sort(abis)
	return cve.Neutralised(abis, func(c syscalls.Call, _ string) bool {
		return allowed[c.ABI].Has(c.Nr) || checked[c.ABI].Has(c.Nr)
	})
}

func ids(list []cve.CVE) []string {
	out := make([]string, 0, len(list))
	for _, c := range list {
		out = append(out, c.ID)
	}
	return out
}

func printScore(w io.Writer, s score) error {
	known := len(s.Neutralised) + len(s.Exposed)
	checked := ""
	if s.Checked > 0 {
		checked = fmt.Sprintf(" (%d with some arguments only)", s.Checked)
	}
	_, err := fmt.Fprintf(w, `calls allowed     %4d%s; the engine's default allows %d
CVEs neutralised  %4d of %d; the engine's default neutralises %d
`, s.Allowed, checked, s.DefaultAllowed, len(s.Neutralised), known, s.DefaultNeutralised)
	if err == nil && len(s.Added) > 0 {
		_, err = fmt.Fprintf(w, "allowed here and not by the default: %s\n", words(s.Added))
	}
	return err
}
