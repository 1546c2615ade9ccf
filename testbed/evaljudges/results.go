// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/judge"
)

// results of all runs, as they are kept in results.json.
type results struct {
	Runs   []string // that made it: when, of which commit, by what command
	Kernel string
	Tools  []string // versions
	// Services that were evaluated, by name.
	Services []serviceResult
	Latency  *latency `json:",omitempty"`
}

// serviceResult is what became of one service.
type serviceResult struct {
	Service  string
	Packages []string
	LeftOut  []string // of the corpus
	Problem  string   `json:",omitempty"` // why it could not be evaluated
	Workload string   // ID
	Partial  []string `json:",omitempty"`
	Learned  map[string]int
	Policy   json.RawMessage `json:",omitempty"` // as of the start of enforcement
	Ops      []opResult      `json:",omitempty"`
	Lives    []life          `json:",omitempty"`
	Attacks  []attackResult  `json:",omitempty"`
}

// opResult is what became of a rare operation.
type opResult struct {
	Op, Doc string
	Seconds float64
	Problem string         `json:",omitempty"` // of the operation's own verification
	Refused []api.HeldLine `json:",omitempty"`
	Cases   []judge.Case   `json:",omitempty"` // of calls that are not in what was learned
	Other   []string       `json:",omitempty"` // problems that the agent told of
}

// accepted: it worked, and nothing was refused for it.
func (r opResult) accepted() bool { return r.Problem == "" && len(wrong(r.Refused)) == 0 }

// asked tells whether it needed anything that was not learned. Else it says nothing about the panel.
func (r opResult) asked() bool { return len(asked(r.Cases)) > 0 || len(wrong(r.Refused)) > 0 }

func (r opResult) line() string {
	word := "accepted"
	if !r.accepted() {
		word = "NOT accepted"
	}
	s := fmt.Sprintf("%s: %s, %.1f s: %s", r.Op, word, r.Seconds, strings.Join(verdicts(asked(r.Cases)), ", "))
	if r.Problem != "" {
		s += "; it failed: " + r.Problem
	}
	if bad := wrong(r.Refused); len(bad) > 0 {
		s += "; refused: " + lines(bad)
	}
	return s
}

// life is what happened to a service beside its rare operations: nothing should.
type life struct {
	Problems []string       `json:",omitempty"`
	Refused  []api.HeldLine `json:",omitempty"`
	Cases    []judge.Case   `json:",omitempty"`
}

func readResults(dir string) (*results, error) {
	text, err := os.ReadFile(filepath.Join(dir, "results.json"))
	if err != nil {
		return nil, err
	}
	var rs results
	return &rs, json.Unmarshal(text, &rs)
}

// keep what there is of services and parts that are not evaluated again.
func keep(o options) (*results, error) {
	rs, err := readResults(o.dir)
	if errors.Is(err, os.ErrNotExist) || err == nil && o.only == "" && o.ops == "" && o.attacks == "" && !o.noOps && !o.noAttacks {
		latency := (*latency)(nil)
		if err == nil {
			latency = rs.Latency
		}
		return &results{Latency: latency}, nil
	}
	return rs, err
}

// put a result in the place of the old one of that service; what was not done again is kept.
func (rs *results) put(r serviceResult, o options) {
	i := slices.IndexFunc(rs.Services, func(old serviceResult) bool { return old.Service == r.Service })
	if i < 0 {
		rs.Services = append(rs.Services, r)
		slices.SortFunc(rs.Services, func(a, b serviceResult) int { return strings.Compare(a.Service, b.Service) })
		return
	}
	old := rs.Services[i]
	if o.noOps {
		r.Ops, r.Lives = old.Ops, old.Lives
	}
	if o.noAttacks {
		r.Attacks = old.Attacks
	}
	r.Ops = replaced(old.Ops, r.Ops, o.ops != "", func(a opResult) string { return a.Op })
	r.Attacks = replaced(old.Attacks, r.Attacks, o.attacks != "", func(a attackResult) string { return a.Attack })
	rs.Services[i] = r
}

// replaced are the new ones, and, when only some were done, the old ones in whose place there is none.
func replaced[T any](old, fresh []T, some bool, name func(T) string) []T {
	if !some {
		return fresh
	}
	out := slices.Clone(fresh)
	for _, o := range old {
		if !slices.ContainsFunc(fresh, func(f T) bool { return name(f) == name(o) }) {
			out = append(out, o)
		}
	}
	return out
}

// cases of a service, those of its operations, its life, and the attacks.
func (r serviceResult) cases() (out []judge.Case) {
	for _, op := range r.Ops {
		out = append(out, op.Cases...)
	}
	for _, l := range r.Lives {
		out = append(out, l.Cases...)
	}
	for _, a := range r.Attacks {
		out = append(out, a.Cases...)
	}
	return out
}

// write results.json; and each service's cases and policy, for `whittle judge replay CASES --policy POLICY`.
func (rs *results) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	text, err := json.Marshal(rs)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "results.json"), text, 0o644); err != nil {
		return err
	}
	for _, r := range rs.Services {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		for _, c := range r.cases() {
			if err := enc.Encode(c); err != nil {
				return err
			}
		}
		err := errors.Join(os.WriteFile(filepath.Join(dir, r.Service+".cases.json"), b.Bytes(), 0o644),
			os.WriteFile(filepath.Join(dir, r.Service+".policy.json"), r.Policy, 0o644))
		if err != nil {
			return err
		}
	}
	return nil
}

// note when and where it was run.
func (rs *results) note(ctx context.Context, o options) {
	var u unix.Utsname
	if err := unix.Uname(&u); err == nil {
		rs.Kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Machine[:])
	}
	rs.Tools = nil
	commit := ""
	for _, args := range [][]string{{"git", "rev-parse", "--short", "HEAD"}, {o.whittle, "version"}, {"crun", "--version"}, {"go", "version"}} {
		out, err := exec.CommandContext(ctx, args[0], args[1:]...).Output()
		line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		switch {
		case err != nil:
		case args[0] == "git":
			commit = line
		default:
			rs.Tools = append(rs.Tools, line)
		}
	}
	rs.Runs = append(rs.Runs, fmt.Sprintf("%s, commit %s: `evaljudges %s`", time.Now().UTC().Format("2006-01-02 15:04 UTC"), commit, strings.Join(shown(os.Args[1:]), " ")))
}

// shown are the arguments without those that name files of this machine.
func shown(args []string) (out []string) {
	for i := 0; i < len(args); i++ {
		switch strings.TrimLeft(args[i], "-") {
		case "whittle", "dir", "report":
			i++
		default:
			out = append(out, args[i])
		}
	}
	return out
}
