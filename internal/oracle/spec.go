// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/workload"
)

// What a spec may hold. It arrives over a socket, and all of it becomes the arguments of an engine.
const (
	maxWords = 512
	maxText  = 64 << 10
	maxWait  = time.Hour
)

// Validate says what is wrong with a spec; hostile or foreign ones included.
func (s Spec) Validate() error {
	if s.Kind.Strength() == None {
		return fmt.Errorf("unknown kind of oracle %q: one of %s", workload.Printable(string(s.Kind), 32), kindNames())
	}
	// The same image with the same everything has nothing in it that would abort.
	if s.Kind == Sanitizer && s.Image == "" && len(s.Entrypoint) == 0 && len(s.Command) == 0 && len(s.Env) == 0 {
		return errors.New("a sanitizer needs another image, command or environment than production")
	}
	if s.Preload != "" && s.Kind != Hardened {
		return fmt.Errorf("an allocator to preload is for the kind %s", Hardened)
	}
	if s.Preload != "" && (!strings.HasPrefix(s.Preload, "/") || strings.ContainsAny(s.Preload, ": ")) {
		return fmt.Errorf("preload %q: not an absolute path without blanks and colons", workload.Printable(s.Preload, 64))
	}
	for _, name := range s.phpLeft() {
		// One that is misspelt would leave nothing, and the service would be an attack.
		if !slices.Contains(phpWatched, name) {
			return fmt.Errorf("%s: %q is not one of %s", PHPLeave, workload.Printable(name, 64), strings.Join(phpWatched, ", "))
		}
	}
	for name, wait := range map[string]time.Duration{"quiet": s.Quiet, "drain": s.Drain} {
		if wait < 0 || wait > maxWait {
			return fmt.Errorf("%s of %s: not within 0 and %s", name, wait, maxWait)
		}
	}
	return s.validWords()
}

func (s Spec) validWords() error {
	words := slices.Concat([]string{s.Image, s.Preload}, s.Entrypoint, s.Command)
	for name, value := range s.Env {
		if !validName(name) {
			return fmt.Errorf("environment: %q is no name of a variable", workload.Printable(name, 64))
		}
		words = append(words, name, value)
	}
	size := 0
	for _, word := range words {
		if strings.ContainsRune(word, 0) {
			return errors.New("a word with a zero byte")
		}
		size += len(word) + 1
	}
	if len(words) > maxWords || size > maxText {
		return fmt.Errorf("%d words of %d bytes: more than %d or %d", len(words), size, maxWords, maxText)
	}
	// Engines take an image that begins with a dash for an option.
	if strings.HasPrefix(s.Image, "-") {
		return fmt.Errorf("image %q begins with a dash", workload.Printable(s.Image, 64))
	}
	return nil
}

// validName of an environment variable.
func validName(name string) bool {
	for i, c := range []byte(name) {
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

func kindNames() string {
	var names []string
	for _, k := range Kinds {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}
