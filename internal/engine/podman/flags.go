// SPDX-License-Identifier: Apache-2.0

package podman

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// flag of a command, as the command's own help has it: versions differ in which there are, and in which take a value.
type flag struct {
	name  string // without dashes, of its long form
	value bool   // it takes one; else it stands alone, or has "=true" or "=false"
}

// flags by their long names, and by their letters.
type flags map[string]flag

// aliases that no help mentions.
var aliases = map[string]string{
	"net": "network", "dns-opt": "dns-option",
	"healthcheck-command": "health-cmd", "healthcheck-interval": "health-interval", "healthcheck-retries": "health-retries",
	"healthcheck-start-period": "health-start-period", "healthcheck-timeout": "health-timeout",
}

// hidden flags that no help mentions and that take a value. They say nothing of the container that is made.
var hidden = []string{"signature-policy", "kernel-memory"}

// parseHelp reads the options of `podman COMMAND --help`:
//
//	-e, --env stringArray          Set environment variables
//	    --privileged               Give extended privileges
//
// The name of a value's type follows after one space; a description, or nothing, after more.
func parseHelp(text string) flags {
	out := make(flags)
	inside := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if strings.HasSuffix(line, "ptions:") || strings.HasSuffix(line, "Flags:") {
			inside = true
			continue
		}
		before, rest, ok := strings.Cut(line, "--")
		letter := strings.TrimSuffix(strings.TrimSpace(before), ",")
		if !inside || !ok || letter != "" && (len(letter) != 2 || letter[0] != '-') {
			continue
		}
		name := rest[:flagEnd(rest)]
		if name == "" {
			continue
		}
		rest = rest[len(name):]
		f := flag{name: name, value: len(rest) > 1 && rest[0] == ' ' && rest[1] != ' '}
		out["--"+name] = f
		if letter != "" {
			out[letter] = f
		}
	}
	return out
}

func flagEnd(s string) int {
	i := strings.IndexFunc(s, func(r rune) bool {
		return r != '-' && (r < 'a' || 'z' < r) && (r < 'A' || 'Z' < r) && (r < '0' || '9' < r)
	})
	if i < 0 {
		return len(s)
	}
	return i
}

// with returns the union; what both know is as the first says.
func (f flags) with(others flags) flags {
	out := make(flags, len(f)+len(others))
	for _, from := range []flags{others, f} {
		maps.Copy(out, from)
	}
	return out
}

func (f flags) long(name string) (flag, bool) {
	if other, ok := aliases[name]; ok {
		name = other
	}
	if is, ok := f["--"+name]; ok {
		return is, true
	}
	if slices.Contains(hidden, name) {
		return flag{name: name, value: true}, true
	}
	return flag{}, false
}

// setting is one flag of a command line. Of a flag without a value, value is "true" or "false".
type setting struct {
	flag
	text string
}

// arg is how it is written again.
func (o setting) arg() string { return "--" + o.name + "=" + o.text }

var errArguments = errors.New("not understood")

// options at the beginning of args, until the first that is none, and the rest, as pflag reads them.
func (f flags) options(args []string) (found []setting, rest []string, err error) {
	for len(args) > 0 {
		arg := args[0]
		switch {
		case arg == "--":
			return found, args[1:], nil
		case len(arg) < 2 || arg[0] != '-':
			return found, args, nil
		}
		var more []setting
		var used int
		if strings.HasPrefix(arg, "--") {
			more, used, err = f.longOption(args)
		} else {
			more, used, err = f.cluster(args)
		}
		if err != nil {
			return nil, nil, err
		}
		found, args = append(found, more...), args[used:]
	}
	return found, nil, nil
}

func (f flags) longOption(args []string) ([]setting, int, error) {
	name, value, given := strings.Cut(args[0][2:], "=")
	is, ok := f.long(name)
	switch {
	case !ok:
		return nil, 0, fmt.Errorf("this podman does not know the option --%s: %w", printable(name), errArguments)
	case given:
		return []setting{{is, value}}, 1, nil
	case !is.value:
		return []setting{{is, "true"}}, 1, nil
	case len(args) < 2:
		return nil, 0, fmt.Errorf("the option --%s has no value: %w", is.name, errArguments)
	}
	return []setting{{is, args[1]}}, 2, nil
}

// cluster is "-dit", "-p8080:80", "-ti=false", "-e A=1": letters that stand alone, and one that takes what is left.
func (f flags) cluster(args []string) (found []setting, used int, err error) {
	for letters := args[0][1:]; letters != ""; {
		is, ok := f["-"+letters[:1]]
		rest := letters[1:]
		switch {
		case !ok:
			return nil, 0, fmt.Errorf("this podman does not know the option -%s: %w", printable(letters[:1]), errArguments)
		case strings.HasPrefix(rest, "="):
			return append(found, setting{is, rest[1:]}), 1, nil
		case !is.value:
			found, letters = append(found, setting{is, "true"}), rest
			continue
		case rest != "":
			return append(found, setting{is, rest}), 1, nil
		case len(args) < 2:
			return nil, 0, fmt.Errorf("the option -%s has no value: %w", printable(letters[:1]), errArguments)
		}
		return append(found, setting{is, args[1]}), 2, nil
	}
	return found, 1, nil
}
