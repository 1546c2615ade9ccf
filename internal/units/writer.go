// SPDX-License-Identifier: Apache-2.0

package units

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of what is written: systemd ignores lines of a megabyte, and a command of the kernel has 128 KB a word.
const (
	maxWord  = 128 << 10
	maxWords = 4096
	maxLine  = 512 << 10
)

// writer of a unit file. It stops at the first error.
type writer struct {
	strings.Builder
	err error
}

func (w *writer) section(name string) {
	if w.Len() > 0 {
		w.WriteString("\n")
	}
	w.WriteString("[" + name + "]\n")
}

func (w *writer) comment(lines ...string) {
	for _, line := range lines {
		w.WriteString("# " + line + "\n")
	}
}

// set a value that is this package's own, or was checked.
func (w *writer) set(key, value string) { w.WriteString(key + "=" + value + "\n") }

// commands of a service.
func (w *writer) commands(s Service) {
	if s.Notify {
		w.set("Type", "notify")
		w.set("NotifyAccess", "all")
	} else {
		w.set("Type", "exec")
	}
	w.success()
	for _, key := range slices.Sorted(maps.Keys(s.Environment)) {
		w.environment(key, s.Environment[key])
	}
	if s.unit {
		w.set("Environment", "PODMAN_SYSTEMD_UNIT=%n")
	}
	for _, c := range s.Before {
		w.exec("ExecStartPre", "-", c)
	}
	w.exec("ExecStart", "", s.Start)
	for _, c := range s.Stop {
		w.exec("ExecStop", "", c)
	}
	for _, c := range s.After {
		w.exec("ExecStopPost", "-", c)
	}
}

// success is also what a container says that was asked to end (SIGTERM).
func (w *writer) success() { w.set("SuccessExitStatus", "143") }

// exec writes a command.
func (w *writer) exec(key, prefix string, command []string) {
	if len(command) == 0 {
		w.fail(fmt.Errorf("%s: there is no command", key))
		return
	}
	path := command[0]
	// No $ and no %: systemd replaces specifiers in the path, and variables from some version on.
	if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "$%") {
		w.fail(fmt.Errorf("%s: %q is not an absolute path without $ and %%", key, path))
		return
	}
	line, err := words(command)
	if err != nil {
		w.fail(fmt.Errorf("%s: %w", key, err))
		return
	}
	w.set(key, prefix+line)
}

// environment variables are no command: $ means nothing there, and a % does.
func (w *writer) environment(key, value string) {
	if key == "" || strings.ContainsAny(key, "= \t\"'\\%") {
		w.fail(fmt.Errorf("%q is no name of an environment variable", key))
		return
	}
	text, err := quote(key+"="+value, "%")
	if err != nil {
		w.fail(err)
		return
	}
	w.set("Environment", text)
}

func (w *writer) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}

// words of a command, as systemd takes them apart again: exactly these.
func words(list []string) (string, error) {
	if len(list) > maxWords {
		return "", fmt.Errorf("a command of %d words", len(list))
	}
	out := make([]string, len(list))
	for i, word := range list {
		var err error
		if out[i], err = quote(word, "%$"); err != nil {
			return "", err
		}
	}
	line := strings.Join(out, " ")
	if len(line) > maxLine {
		return "", fmt.Errorf("a command of %d bytes", len(line))
	}
	return line, nil
}

// errUnwritable is what no line of a unit can carry.
var errUnwritable = errors.New("a unit cannot carry it")

// quote one word; the characters of double are written twice (systemd.service(5), COMMAND LINES).
func quote(word, double string) (string, error) {
	if len(word) > maxWord {
		return "", fmt.Errorf("a word of %d bytes: %w", len(word), errUnwritable)
	}
	// systemd ignores a whole line that is not UTF-8.
	if !utf8.ValidString(word) {
		return "", fmt.Errorf("%.40q is not UTF-8: %w", word, errUnwritable)
	}
	plain := word != ""
	var b strings.Builder
	for _, r := range word {
		switch {
		case unicode.IsControl(r):
			return "", fmt.Errorf("%.40q has a line break or another control character: %w", word, errUnwritable)
		case strings.ContainsRune(double, r):
			b.WriteRune(r)
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			plain = false
		}
		if !isPlain(r) {
			plain = false
		}
		b.WriteRune(r)
	}
	if plain {
		return b.String(), nil
	}
	return `"` + b.String() + `"`, nil
}

// isPlain characters mean nothing to systemd within a word. % and $ are doubled where they do.
func isPlain(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/_-.:,=+@%$", r)
}
