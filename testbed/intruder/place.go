// SPDX-License-Identifier: Apache-2.0

package intruder

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// place of an instruction. undo what was done to have it there.
type place struct {
	at    uint64
	undos []func() error
	gone  *bool
}

func (p *place) later(undo func() error) { p.undos = append(p.undos, undo) }

func (p *place) undo() (err error) {
	for n := len(p.undos) - 1; n >= 0 && !*p.gone; n-- {
		err = errors.Join(err, p.undos[n]())
	}
	return err
}

// ErrNone says that there is no such instruction in the program or the library.
var ErrNone = errors.New("it has no such instruction")

const pageSize = 4096

// place an instruction in memory of a kind.
func (t *thread) place(origin Origin, code []byte) (p place, err error) {
	p.gone = &t.gone
	defer func() {
		if err != nil {
			err = errors.Join(err, p.undo())
		}
	}()
	switch origin {
	case Waiting:
		if !bytes.Equal(code, trap) {
			return p, ErrNone
		}
		p.at = t.before.PC() - uint64(len(trap))
	case Libc:
		err = t.found(&p, "the C library", mapping.ofLibc, code)
	case Program:
		exe, link := os.Readlink(fmt.Sprintf("/proc/%d/exe", t.tid))
		if link != nil {
			return p, link
		}
		err = t.found(&p, "the program", func(m mapping) bool { return m.name == exe }, code)
	case Vdso:
		err = t.found(&p, "the vDSO", func(m mapping) bool { return m.name == "[vdso]" }, code)
	case Text:
		err = t.patched(&p, code)
	case Stack:
		err = t.onStack(&p, code)
	case Heap:
		err = t.onHeap(&p, code)
	default:
		err = t.mapped(&p, origin, code)
	}
	return p, err
}

// found in a file's code, best where the C library makes its own calls.
func (t *thread) found(p *place, what string, of func(mapping) bool, code []byte) error {
	all, err := t.mappings()
	if err != nil {
		return err
	}
	var any uint64
	for _, m := range all {
		if !m.code() || !of(m) {
			continue
		}
		text := make([]byte, m.end-m.start)
		if err := t.read(m.start, text); err != nil {
			return err
		}
		if at := bytes.Index(text, append(bytes.Clone(code), behind...)); at >= 0 {
			p.at = m.start + uint64(at)
			return nil
		}
		if at := bytes.Index(text, code); at >= 0 && any == 0 {
			any = m.start + uint64(at)
		}
	}
	if any == 0 {
		return fmt.Errorf("%s: %w", what, ErrNone)
	}
	p.at = any
	return nil
}

// patched into a page of the C library's text that makes no calls of its own: the page stays a copy when it is restored.
func (t *thread) patched(p *place, code []byte) error {
	m, err := t.first("the C library's code", func(m mapping) bool { return m.code() && m.ofLibc() })
	if err != nil {
		return err
	}
	text := make([]byte, m.end-m.start)
	if err := t.read(m.start, text); err != nil {
		return err
	}
	for at := len(text) - pageSize; at >= 0; at -= pageSize {
		// An instruction that lies across its beginning would be one of its calls as well.
		if !bytes.Contains(text[max(0, at-len(trap)+1):min(len(text), at+pageSize+len(trap)-1)], trap) {
			p.at = m.start + uint64(at) + 64
			undo, err := t.overwrite(p.at, code)
			if err == nil {
				p.later(undo)
			}
			return err
		}
	}
	return errors.New("each page of the C library makes calls")
}

// onStack of the main thread: at its lower end, which is not in use. All of it is made executable, because a part would not
// be called the stack any more.
func (t *thread) onStack(p *place, code []byte) error {
	m, err := t.first("the stack", func(m mapping) bool { return m.name == "[stack]" })
	if err != nil {
		return err
	}
	if sp := stackPointer(&t.before); sp < m.start+pageSize && sp >= m.start {
		return errors.New("its stack is used to the end")
	}
	if _, err := t.errand("mprotect", m.start, m.end-m.start, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC); err != nil {
		return err
	}
	p.later(func() error {
		_, err := t.errand("mprotect", m.start, m.end-m.start, unix.PROT_READ|unix.PROT_WRITE)
		return err
	})
	p.at = m.start + 64
	undo, err := t.overwrite(p.at, code)
	if err == nil {
		p.later(undo)
	}
	return err
}

// onHeap: on a page that the heap grows by. It stays, because the process may have grown it further meanwhile.
func (t *thread) onHeap(p *place, code []byte) error {
	end, err := t.errand("brk", 0)
	if err != nil {
		return err
	}
	page := (end + pageSize - 1) &^ (pageSize - 1)
	if got, err := t.errand("brk", page+pageSize); err != nil || got != page+pageSize {
		return errors.Join(errors.New("its heap does not grow"), err)
	}
	if _, err := t.errand("mprotect", page, pageSize, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC); err != nil {
		return err
	}
	p.later(func() error {
		_, err := t.errand("mprotect", page, pageSize, unix.PROT_READ|unix.PROT_WRITE)
		return err
	})
	p.at = page + 64
	undo, err := t.overwrite(p.at, code)
	if err == nil {
		p.later(undo)
	}
	return err
}
