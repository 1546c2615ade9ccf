// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"io"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// need is what the observed containers need together.
type need struct {
	lives bool // fork, exec, exit, signals, cgroups: rare events, for any container
	enter bool // every call of every task of the host pays for this one
	exit  bool // and for this one
}

// attachments are the links of the programs that run now.
type attachments struct {
	lives, enter, exit []io.Closer
}

func (a *attachments) names() (names []string) {
	if a.lives != nil {
		names = append(names, "lives")
	}
	if a.enter != nil {
		names = append(names, "sys_enter")
	}
	if a.exit != nil {
		names = append(names, "sys_exit")
	}
	return names
}

// set attaches what is needed and detaches what is not. sys_enter is attached before sys_exit: a return whose entry was
// not seen would look like a denial.
func (a *attachments) set(p *objects, n need) error {
	return errors.Join(
		toggle(&a.lives, n.lives, p.ProcessFork, p.ProcessExec, p.ProcessExit, p.Signal, p.CgroupMkdir),
		toggle(&a.enter, n.enter, p.SysEnter),
		toggle(&a.exit, n.exit, p.SysExit),
	)
}

func toggle(links *[]io.Closer, on bool, programs ...*ebpf.Program) (err error) {
	if on == (*links != nil) {
		return nil
	}
	if !on {
		for _, l := range *links {
			err = errors.Join(err, l.Close())
		}
		*links = nil
		return err
	}
	var attached []io.Closer
	for _, p := range programs {
		l, err := link.AttachTracing(link.TracingOptions{Program: p})
		if err != nil {
			for _, l := range attached {
				l.Close()
			}
			return fmt.Errorf("attach %s: %w", p, err)
		}
		attached = append(attached, l)
	}
	*links = attached
	return nil
}
