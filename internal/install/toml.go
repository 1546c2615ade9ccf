// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/whittle-sec/whittle/internal/hint"
)

// What Whittle writes into config.toml is marked, so that it is found again among other people's edits.
const (
	beginMark   = "# whittle install: begin"
	endMark     = "# whittle install: end"
	insteadMark = " # whittle install: instead of "
	addedMark   = " # whittle install: added"
)

// containerdTOML is what matters of a config.toml.
type containerdTOML struct {
	lines   []string // with their newlines
	plugin  string   // the table of the CRI plugin in this version of the format
	runtime string   // name of the default runtime
	table   int      // line of the header of its table; -1: there is none
	options int      // and of the table of its options
	binary  string   // BinaryName in there
	at      int      // its line, or -1
	noCRI   bool
}

var (
	header    = regexp.MustCompile(`^\s*\[([^\[\]]+)\]\s*(#.*)?$`)
	keyed     = regexp.MustCompile(`^\s*([A-Za-z0-9_."'-]+)\s*=\s*(.*?)\s*$`)
	quoted    = regexp.MustCompile(`^("[^"\\]*"|'[^']*')\s*(#.*)?$`)
	dottedKey = regexp.MustCompile(`"[^"]*"|'[^']*'|[A-Za-z0-9_-]+`)
)

// readContainerd understands the TOML that people and `containerd config default` write: tables with headers of their own, one
// key a line. It refuses what it might misread.
func readContainerd(config []byte) (containerdTOML, error) {
	c := containerdTOML{runtime: "runc", table: -1, options: -1, at: -1}
	text := string(config)
	if strings.TrimSpace(text) == "" {
		c.plugin = "io.containerd.grpc.v1.cri"
		return c, nil
	}
	if strings.Contains(text, `"""`) || strings.Contains(text, `'''`) {
		return c, byHand(errors.New("it has strings of several lines"))
	}
	for line := range strings.Lines(text) {
		c.lines = append(c.lines, line)
	}
	if err := c.version(); err != nil {
		return c, err
	}
	if err := c.scan(c.defaultName); err != nil {
		return c, err
	}
	return c, c.scan(c.defaultRuntime)
}

func byHand(err error) error {
	return hint.Add(err, "set BinaryName of the runtime's options to "+wrapperPath("containerd")+" by hand")
}

// scan calls f for each header (with an empty key) and each key of the file.
func (c *containerdTOML) scan(f func(line int, table []string, key, value string) error) error {
	var table []string
	depth := 0 // of brackets of a value that goes on
	for i, line := range c.lines {
		line = strings.TrimRight(line, "\r\n")
		if depth > 0 {
			depth += nesting(line)
			continue
		}
		if found := header.FindStringSubmatch(line); found != nil {
			table = nil
			for _, part := range dottedKey.FindAllString(found[1], -1) {
				table = append(table, strings.Trim(part, `"'`))
			}
			if err := f(i, table, "", ""); err != nil {
				return err
			}
			continue
		}
		if found := keyed.FindStringSubmatch(line); found != nil {
			depth = max(0, nesting(found[2]))
			if err := f(i, table, found[1], found[2]); err != nil {
				return err
			}
		}
	}
	if depth > 0 {
		return byHand(errors.New("a value has no end"))
	}
	return nil
}

// nesting is how many brackets a line leaves open.
func nesting(line string) int {
	n, quote := 0, rune(0)
	for _, r := range line {
		switch {
		case quote != 0:
			if r == quote {
				quote = 0
			}
		case r == '"' || r == '\'':
			quote = r
		case r == '#':
			return n
		case r == '[' || r == '{':
			n++
		case r == ']' || r == '}':
			n--
		}
	}
	return n
}

func (c *containerdTOML) version() error {
	version := "1"
	err := c.scan(func(_ int, table []string, key, value string) error {
		if len(table) == 0 && key == "version" {
			version, _, _ = strings.Cut(value, "#")
			version = strings.TrimSpace(version)
		}
		if len(table) == 0 && key == "disabled_plugins" && strings.Contains(value, "cri") {
			c.noCRI = true
		}
		return nil
	})
	switch version {
	case "2":
		c.plugin = "io.containerd.grpc.v1.cri"
	case "3":
		c.plugin = "io.containerd.cri.v1.runtime"
	default:
		return hint.Add(fmt.Errorf("its version is %.20s", version), "containerd config migrate prints it in version 2")
	}
	return err
}

func (c *containerdTOML) defaultName(_ int, table []string, key, value string) error {
	if slices.Equal(table, []string{"plugins", c.plugin, "containerd"}) && key == "default_runtime_name" {
		if !quoted.MatchString(value) {
			return byHand(fmt.Errorf("default_runtime_name is %.40s", value))
		}
		c.runtime = unquote(value)
	}
	return nil
}

func (c *containerdTOML) defaultRuntime(line int, table []string, key, value string) error {
	own := []string{"plugins", c.plugin, "containerd", "runtimes", c.runtime}
	options := append(slices.Clone(own), "options")
	switch {
	case key == "" && slices.Equal(table, own):
		c.table = line
	case key == "" && slices.Equal(table, options):
		c.options = line
	case key == "BinaryName" && slices.Equal(table, options):
		if !quoted.MatchString(value) {
			// The mark of Whittle's own edit is a comment, which quoted takes.
			return byHand(fmt.Errorf("BinaryName is %.40s", value))
		}
		c.binary, c.at = unquote(value), line
	case key != "" && elsewhere(table, key, value):
		return byHand(fmt.Errorf("line %d defines runtimes in a way that is not understood", line+1))
	}
	return nil
}

// elsewhere tells whether a line defines a runtime other than by a table's header: with a dotted key or in braces.
func elsewhere(table []string, key, value string) bool {
	if len(table) > 0 && table[0] != "plugins" {
		return false
	}
	return strings.Contains(key, "runtimes") || strings.Contains(value, "runtimes") && strings.Contains(value, "{") ||
		len(table) > 3 && table[3] == "runtimes" && (strings.Contains(key, "options") || strings.HasPrefix(value, "{"))
}

func unquote(value string) string { return value[1 : 1+strings.IndexByte(value[1:], value[0])] }

// withBinaryName makes a file name an executable for its default runtime, and be what it was otherwise. What comes out is read
// again: an edit that is not understood afterwards is none.
func withBinaryName(config []byte, name string) ([]byte, error) {
	out, err := editBinaryName(config, name)
	if err != nil {
		return nil, err
	}
	c, err := readContainerd(out)
	if err != nil {
		return nil, err
	}
	if c.binary != name {
		return nil, byHand(errors.New("it is laid out in a way that is not understood"))
	}
	return out, nil
}

func editBinaryName(config []byte, name string) ([]byte, error) {
	c, err := readContainerd(config)
	if err != nil {
		return nil, err
	}
	if c.binary == name {
		return config, nil
	}
	if c.at >= 0 {
		line := c.lines[c.at]
		indent, value, _ := strings.Cut(line, "BinaryName")
		value = strings.TrimRight(strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(value), "=")), "\r\n")
		c.lines[c.at] = indent + "BinaryName = " + strconv.Quote(name) + insteadMark + value + "\n"
		return c.text(), nil
	}
	if c.options >= 0 {
		line := c.lines[c.options]
		indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]
		c.lines = slices.Insert(c.lines, c.options+1, indent+"  BinaryName = "+strconv.Quote(name)+addedMark+"\n")
		if !strings.HasSuffix(c.lines[c.options], "\n") {
			c.lines[c.options] += "\n"
		}
		return c.text(), nil
	}
	return c.withTables(name), nil
}

// withTables appends what is not there. Tables may come in any order.
func (c containerdTOML) withTables(name string) []byte {
	var b strings.Builder
	if len(c.lines) == 0 {
		b.WriteString("version = 2\n")
	}
	b.Write(c.text())
	if n := len(c.lines); n > 0 && !strings.HasSuffix(c.lines[n-1], "\n") {
		b.WriteString("\n")
	}
	table := fmt.Sprintf("plugins.%q.containerd.runtimes.%q", c.plugin, c.runtime)
	b.WriteString(beginMark + "\n")
	if c.table < 0 {
		fmt.Fprintf(&b, "[%s]\n  runtime_type = \"io.containerd.runc.v2\"\n", table)
	}
	fmt.Fprintf(&b, "[%s.options]\n  BinaryName = %q\n%s\n", table, name, endMark)
	return []byte(b.String())
}

func (c containerdTOML) text() []byte { return []byte(strings.Join(c.lines, "")) }

// withoutBinaryName takes out what is marked.
func withoutBinaryName(config []byte) ([]byte, error) {
	var b strings.Builder
	inside := false
	for line := range strings.Lines(string(config)) {
		text := strings.TrimSpace(line)
		switch {
		case text == beginMark:
			inside = true
		case text == endMark:
			inside = false
		case inside, strings.HasSuffix(text, strings.TrimSpace(addedMark)):
		case strings.Contains(line, insteadMark):
			indent, _, _ := strings.Cut(line, "BinaryName")
			_, was, _ := strings.Cut(line, insteadMark)
			b.WriteString(indent + "BinaryName = " + was)
		default:
			b.WriteString(line)
		}
	}
	if inside {
		return nil, byHand(fmt.Errorf("%q has no end", beginMark))
	}
	return []byte(b.String()), nil
}
