// SPDX-License-Identifier: Apache-2.0

package oracle

// ImageFacts is what is known of an image without running it. What is not known is zero.
type ImageFacts struct {
	Path        string   // of the program
	Entrypoint  []string // the whole argument vector
	Interpreter string   // PT_INTERP
	Static      bool
	Go          bool     // has Go's build info
	Rust        bool     // has Rust's symbols or panic strings
	Needs       []string // DT_NEEDED
	Libc        string   // "glibc 2.36", "musl", ""
	Scripts     []string // interpreters found: "python3", "node", "php", "perl", "ruby" …
	Distro      string   // ID of os-release: "debian", "alpine" …
	HasValgrind bool
}

// Hint is one kind of oracle, and whether it suits the image.
type Hint struct {
	Kind     Kind     `json:"kind,omitempty"` // "" for a remark
	Strength Strength `json:"strength"`
	Applies  bool     `json:"applies"`
	Why      string   `json:"why"`
	Run      []string `json:"run,omitempty"` // commands, or lines of a Dockerfile
}

// Hints for an image, the best first.
func Hints(f ImageFacts) []Hint { return nil }
