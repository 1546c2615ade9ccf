// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// iptables in one of its variants: the host's default, or one by name. Rules go to the table raw, which comes before
// connection tracking: the chain PREROUTING for what comes from outside and from containers, OUTPUT for the host's own.
type iptables struct {
	variant   string
	four, six tables
}

// tables are the programs for one family. All rules of a gate go in as one transaction: one program to start instead
// of one for each rule.
type tables struct{ restore, save string }

// family finds the programs of a variant ("", "-nft", "-legacy") for IPv4 ("") or IPv6 ("6").
func family(variant, version string) (tables, bool) {
	name := "ip" + version + "tables" + variant
	t := tables{restore: tool(name + "-restore"), save: tool(name + "-save")}
	return t, t.restore != "" && t.save != ""
}

func (i iptables) name() string { return i.variant }

// put at the top: what comes before may accept, and then the gate is not asked.
func (i iptables) put(ctx context.Context, r ruleset) error { return i.each(ctx, "-I %s 1 %s", r) }

func (i iptables) lift(ctx context.Context, r ruleset) error {
	if err := i.each(ctx, "-D %s %s", r); err == nil {
		return nil
	}
	return i.remove(ctx, r.tag.is) // some of them may be gone
}

// tidy nothing: the table raw is everybody's.
func (iptables) tidy(context.Context) error { return nil }

// each rule, in one transaction for each family.
func (i iptables) each(ctx context.Context, format string, r ruleset) error {
	four, six := byFamily(r.to)
	if err := i.four.each(ctx, format, four, r); err != nil || len(six) == 0 {
		return err
	}
	if i.six.restore == "" {
		return errors.New("there is IPv6 on this host, and no ip6tables")
	}
	return i.six.each(ctx, format, six, r)
}

func byFamily(to []Destination) (four, six []Destination) {
	with6 := hasIPv6()
	for _, d := range to {
		if !d.Addr.Is6() {
			four = append(four, d)
		}
		if !d.Addr.Is4() && with6 {
			six = append(six, d)
		}
	}
	return four, six
}

func (t tables) each(ctx context.Context, format string, to []Destination, r ruleset) error {
	if len(to) == 0 {
		return nil
	}
	var rules []string
	for _, chain := range []string{"PREROUTING", "OUTPUT"} {
		// Each goes to the top, so that this one is behind the others in the end.
		if r.queue != nil {
			unmark := fmt.Sprintf("-m mark --mark %#x -m comment --comment %s -j MARK --set-mark 0", r.passed, r.tag)
			rules = append(rules, fmt.Sprintf(format, chain, unmark))
		}
		for _, d := range to {
			rules = append(rules, fmt.Sprintf(format, chain, iptablesRule(d, r)))
		}
	}
	return t.change(ctx, rules)
}

// change the table raw, wholly or not at all. -w waits for whoever else is changing rules.
func (t tables) change(ctx context.Context, rules []string) error {
	input := "*raw\n" + strings.Join(rules, "\n") + "\nCOMMIT\n"
	_, err := run(ctx, input, t.restore, "-w", "5", "--noflush")
	return err
}

func iptablesRule(d Destination, r ruleset) string {
	to := "-m addrtype --dst-type LOCAL"
	if d.Addr.IsValid() {
		to = "-d " + d.Addr.String()
	}
	when := "-m time --datestop " + r.until.UTC().Format("2006-01-02T15:04:05")
	what := "-j DROP"
	if r.queue != nil {
		when = fmt.Sprintf("-m mark ! --mark %#x", r.passed)
		what = fmt.Sprintf("-j NFQUEUE --queue-num %d --queue-bypass", *r.queue)
	}
	return fmt.Sprintf("%s -p tcp --syn --dport %d %s -m comment --comment %s %s", to, d.Port, when, r.tag, what)
}

func (i iptables) remove(ctx context.Context, of func(tag) bool) error {
	return errors.Join(i.four.remove(ctx, of), i.six.remove(ctx, of))
}

// remove rules as the kernel has them: each is deleted by its exact specification, and only those with our comment.
func (t tables) remove(ctx context.Context, of func(tag) bool) error {
	var err error
	for range 3 { // somebody else may take one away after the listing, and then the whole change fails
		var rules []savedRule
		if rules, err = t.list(ctx, of); err != nil {
			return fmt.Errorf("%w: %w", errListing, err)
		}
		if len(rules) == 0 {
			return nil
		}
		var deletions []string
		for _, r := range rules {
			deletions = append(deletions, "-D "+r.spec)
		}
		if err = t.change(ctx, deletions); err == nil {
			return nil
		}
	}
	return fmt.Errorf("removing rules: %w", err)
}

func (i iptables) count(ctx context.Context, of tag) (uint64, error) {
	var sum uint64
	for _, t := range []tables{i.four, i.six} {
		rules, err := t.list(ctx, of.is)
		if err != nil {
			return 0, err
		}
		for _, r := range rules {
			sum += r.packets
		}
	}
	return sum, nil
}

// savedRule is a rule of ours as iptables-save prints it: "PREROUTING -p tcp …".
type savedRule struct {
	spec    string
	packets uint64
}

// list without naming the table: a table that is named is made when there is none.
func (t tables) list(ctx context.Context, of func(tag) bool) ([]savedRule, error) {
	if t.save == "" {
		return nil, nil
	}
	out, err := run(ctx, "", t.save, "-c")
	if err != nil {
		return nil, err
	}
	return parseSaved(out, of), nil
}

func parseSaved(out string, of func(tag) bool) []savedRule {
	var rules []savedRule
	table := ""
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "*"); ok {
			table = name
		}
		if table != "raw" {
			continue
		}
		if r, t, ok := parseSavedRule(line); ok && of(t) {
			rules = append(rules, r)
		}
	}
	return rules
}

// parseSavedRule of ours: [PACKETS:BYTES] -A CHAIN … --comment TAG …
func parseSavedRule(line string) (savedRule, tag, bool) {
	counters, rest, ok := strings.Cut(line, "] -A ")
	if !ok || !strings.HasPrefix(counters, "[") {
		return savedRule{}, tag{}, false
	}
	words := strings.Fields(rest)
	at := slices.Index(words, "--comment")
	if at < 1 || at+1 >= len(words) || (words[0] != "PREROUTING" && words[0] != "OUTPUT") {
		return savedRule{}, tag{}, false
	}
	t, ok := parseTag(strings.Trim(words[at+1], `"`))
	if !ok {
		return savedRule{}, tag{}, false
	}
	packets, _, _ := strings.Cut(counters[1:], ":")
	n, err := strconv.ParseUint(packets, 10, 64)
	return savedRule{spec: rest, packets: n}, t, err == nil
}
