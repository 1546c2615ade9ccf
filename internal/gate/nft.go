// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// nft puts the rules of all gates into one table of our own. It goes with the last rule, and not sooner: when a base
// chain goes, the kernel drops whatever waits in any packet queue of the network namespace.
type nft struct{ path string }

const (
	nftTable = "inet whittle_gate"
	// Before raw (-300), and after defragmentation (-400).
	nftChains = `add table inet whittle_gate
add chain inet whittle_gate prerouting { type filter hook prerouting priority -301; policy accept; }
add chain inet whittle_gate output { type filter hook output priority -301; policy accept; }
`
)

func (n nft) name() string { return "nft" }

func (n nft) put(ctx context.Context, r ruleset) error {
	var b strings.Builder
	b.WriteString(nftChains)
	for _, chain := range []string{"prerouting", "output"} {
		for _, d := range r.to {
			fmt.Fprintf(&b, "add rule %s %s %s\n", nftTable, chain, nftRule(d, r))
		}
		if r.queue != nil {
			fmt.Fprintf(&b, "add rule %s %s meta mark %#x meta mark set 0 comment %q\n", nftTable, chain, r.passed, r.tag)
		}
	}
	_, err := run(ctx, b.String(), n.path, "-f", "-")
	return err
}

func nftRule(d Destination, r ruleset) string {
	to := "fib daddr type local"
	switch {
	case d.Addr.Is4():
		to = "ip daddr " + d.Addr.String()
	case d.Addr.Is6():
		to = "ip6 daddr " + d.Addr.String()
	}
	what := fmt.Sprintf("meta time < %d counter drop", r.until.Unix())
	if r.queue != nil {
		what = fmt.Sprintf("meta mark != %#x counter queue num %d bypass", r.passed, *r.queue)
	}
	return fmt.Sprintf("%s tcp dport %d tcp flags & (fin|syn|rst|ack) == syn %s comment %q", to, d.Port, what, r.tag)
}

// lift needs the rules' handles, which only a listing has.
func (n nft) lift(ctx context.Context, r ruleset) error { return n.remove(ctx, r.tag.is) }

func (n nft) remove(ctx context.Context, of func(tag) bool) error {
	all, err := n.list(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", errListing, err)
	}
	var b strings.Builder
	for _, r := range all {
		if r.ours && of(r.tag) {
			fmt.Fprintf(&b, "delete rule %s %s handle %d\n", nftTable, r.chain, r.handle)
		}
	}
	if b.Len() == 0 {
		return nil
	}
	if _, err := run(ctx, b.String(), n.path, "-f", "-"); err != nil {
		return fmt.Errorf("removing rules: %w", err)
	}
	return nil
}

func (n nft) tidy(ctx context.Context) error {
	there, err := n.hasTable(ctx)
	if err != nil || !there {
		return err
	}
	if all, err := n.list(ctx); err != nil || len(all) > 0 {
		return err
	}
	if _, err := run(ctx, "", n.path, "delete", "table", "inet", "whittle_gate"); err != nil {
		return fmt.Errorf("removing the table: %w", err)
	}
	return nil
}

func (n nft) count(ctx context.Context, of tag) (uint64, error) {
	all, err := n.list(ctx)
	if err != nil {
		return 0, err
	}
	var sum uint64
	for _, r := range all {
		if r.ours && r.tag == of {
			sum += r.packets
		}
	}
	return sum, nil
}

// hasTable reads a listing of all tables: the text of an error is not for programs.
func (n nft) hasTable(ctx context.Context) (bool, error) {
	tables, err := run(ctx, "", n.path, "list", "tables")
	if err != nil {
		return false, err
	}
	return hasLine(tables, "table "+nftTable), nil
}

// list the rules of our table.
func (n nft) list(ctx context.Context) ([]listedRule, error) {
	there, err := n.hasTable(ctx)
	if err != nil || !there {
		return nil, err
	}
	out, err := run(ctx, "", n.path, "-n", "-a", "list", "table", "inet", "whittle_gate")
	if err != nil {
		return nil, err
	}
	return parseListing(out)
}

func hasLine(text, want string) bool {
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) == want {
			return true
		}
	}
	return false
}

// listedRule of our table; one that is not ours somebody else has put there.
type listedRule struct {
	chain   string
	handle  uint64
	packets uint64
	tag     tag
	ours    bool
}

// parseListing of nft -a: rules are the lines in a chain that end in "# handle N".
func parseListing(out string) ([]listedRule, error) {
	var rules []listedRule
	chain := ""
	for line := range strings.Lines(out) {
		body, handle, ok := strings.Cut(line, "# handle ")
		words := strings.Fields(body)
		switch {
		case len(words) >= 2 && words[0] == "chain":
			chain = words[1]
			continue
		case !ok || chain == "" || len(words) == 0:
			continue
		}
		r := listedRule{chain: chain}
		var err error
		if r.handle, err = strconv.ParseUint(strings.TrimSpace(handle), 10, 64); err != nil {
			return nil, errors.New("a rule's handle is no number")
		}
		for i, w := range words[:len(words)-1] {
			next := words[i+1]
			switch w {
			case "packets":
				r.packets, _ = strconv.ParseUint(next, 10, 64)
			case "comment":
				r.tag, r.ours = parseTag(strings.Trim(next, `"`))
			}
		}
		rules = append(rules, r)
	}
	return rules, nil
}
