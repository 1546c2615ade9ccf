// SPDX-License-Identifier: Apache-2.0

package judge

import "strconv"

// injected says of the kinds of memory that are a veto what they are. A program's own calls come from its image; a JIT
// engine's too, because the code that it makes calls the C library.
var injected = map[Class]string{
	Writable:  "memory of a file that can be, or was, written to",
	Foreign:   "a file that anything in the container could have written",
	Memfd:     "a file without a name",
	Heap:      "the heap",
	Stack:     "a stack",
	Anonymous: "memory that belongs to no file",
}

// origin lets the image speak for nothing, because an intruder who has no code of his own borrows the image's; it only
// tells injected code from the rest.
func origin(o Origin) Vote {
	why := ""
	if o.Why != "" {
		why = ": " + o.Why
	}
	switch o.Class {
	case File:
		return Vote{Why: "made from " + named(o.Path) + " at 0x" + strconv.FormatUint(o.Offset, 16) + buildID(o.BuildID) + why}
	case Vdso:
		return Vote{Why: "made from the kernel's own page in the process" + why}
	case Unknown:
		return Vote{Stance: Against, Why: "where it was made from is not known" + why}
	}
	return Vote{Stance: Veto, Why: Injected(o)}
}

// Injected is why an instruction is not one of a program's own, or "".
func Injected(o Origin) string {
	if !o.Class.vetoed() {
		return ""
	}
	what := injectedWord(o.Class)
	if o.Path != "" {
		what += " (" + o.Path + ")"
	}
	if o.Why != "" {
		what += ": " + o.Why
	}
	return "injected code: made from " + what
}

// vetoed reports whether the memory is no place for a program's calls.
func (c Class) vetoed() bool { return c != Unknown && c != File && c != Vdso }

func injectedWord(c Class) string {
	if what, ok := injected[c]; ok {
		return what
	}
	return "memory of a kind that is not known"
}

func buildID(id string) string {
	if id == "" {
		return ""
	}
	return " (build id " + id + ")"
}

func named(path string) string {
	if path == "" {
		return "a file of the image"
	}
	return path
}
