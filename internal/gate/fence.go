// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/hint"
)

// fence is a program that puts rules into the kernel. Its methods work in the network namespace of the calling
// thread, under lock.
type fence interface {
	name() string
	put(ctx context.Context, r ruleset) error
	// lift what put has made.
	lift(ctx context.Context, r ruleset) error
	// remove the rules of gates for which of is true, and nothing else. That there are none is no error.
	remove(ctx context.Context, of func(tag) bool) error
	// tidy away what is of no use without rules. What waits in a queue would not outlast it.
	tidy(ctx context.Context) error
	// count the packets that the rules of a gate matched.
	count(ctx context.Context, of tag) (uint64, error)
}

// ruleset is what a gate asks a fence for: hold SYNs to these destinations.
type ruleset struct {
	to    []Destination
	tag   tag
	until time.Time // when dropping ends by itself

	queue  *uint16 // nil: drop them
	passed uint32  // the mark of what has been let go
}

type attempt struct {
	fence  fence
	queues bool
}

// errListing is of a fence that cannot tell which rules there are.
var errListing = errors.New("listing rules")

var errNoTool = hint.Add(errors.New("neither iptables nor nft is installed"),
	"install iptables or nftables: the rules that make connections wait are made with it")

// fences that are installed. The host's own choice of iptables is first: another variant would make tables beside
// the ones that its administrator looks at.
func fences() []fence {
	var found []fence
	var known []string // alternatives are links to one program
	for _, variant := range []string{"iptables", "nft", "iptables-nft", "iptables-legacy"} {
		path := tool(variant)
		if path == "" {
			continue
		}
		if variant == "nft" {
			found = append(found, nft{path})
			continue
		}
		f := iptables{variant: variant}
		var ok bool
		if f.four, ok = family(strings.TrimPrefix(variant, "iptables"), ""); !ok {
			continue
		}
		f.six, _ = family(strings.TrimPrefix(variant, "iptables"), "6")
		// All variants are links to two programs, which go by the name they are called.
		if target := resolved(f.four.restore); !slices.Contains(known, target) {
			known = append(known, target)
			found = append(found, f)
		}
	}
	return found
}

// attempts in the order of preference: any queue is better than dropping.
func attempts() []attempt {
	var all []attempt
	for _, queues := range []bool{true, false} {
		for _, f := range fences() {
			all = append(all, attempt{f, queues})
		}
	}
	return all
}

// toolFolders come before PATH: a daemon's may lack them.
var toolFolders = []string{"/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin"}

// tool is the absolute path of a program, or "".
func tool(name string) string {
	for _, dir := range toolFolders {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	if path, err := exec.LookPath(name); err == nil && filepath.IsAbs(path) {
		return path
	}
	return ""
}

func resolved(path string) string {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return path
	}
	return target
}

// maxListing bounds what is read of a host's rules: some have hundreds of thousands.
const maxListing = 64 << 20

// run a tool with an input, and return what it prints.
func run(ctx context.Context, input string, path string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin = strings.NewReader(input)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.WaitDelay = time.Second
	out, errs := &bounded{left: maxListing}, &bounded{left: 4096}
	cmd.Stdout, cmd.Stderr = out, errs
	if err := cmd.Run(); err != nil {
		said := strings.Join(strings.Fields(errs.String()), " ")
		return "", fmt.Errorf("%s: %w: %.300q", filepath.Base(path), err, said)
	}
	if out.full {
		return "", fmt.Errorf("%s prints more than %d bytes", filepath.Base(path), maxListing)
	}
	return out.String(), nil
}

// bounded keeps the first bytes that are written to it.
type bounded struct {
	bytes.Buffer
	left int
	full bool
}

func (b *bounded) Write(p []byte) (int, error) {
	n := min(len(p), b.left)
	b.left -= n
	b.full = b.full || n < len(p)
	b.Buffer.Write(p[:n])
	return len(p), nil
}

// ReadFrom hides the buffer's own, which has no bound.
func (b *bounded) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{b}, r)
}

func countDropped(ctx context.Context, f fence, t tag) uint64 {
	n, err := f.count(ctx, t)
	if err != nil {
		return 0
	}
	return n
}

// hasIPv6 tells whether the network namespace of the calling thread can have IPv6 connections.
func hasIPv6() bool {
	_, err := os.Stat("/proc/thread-self/net/if_inet6")
	return err == nil
}
