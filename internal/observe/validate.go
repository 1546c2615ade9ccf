// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"fmt"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Bounds of a trace. They are far above what the kernel's maps hold (bpf/whittle.h), and keep a hostile file small.
const (
	maxEpochs = 1 << 20
	maxCells  = 1 << 14
	maxBursts = 1 << 16
	maxExe    = 4096
	maxMissed = 1 << 10 // gaps and loss counters

	burstNrs = 512 // bursts only hold numbers below this
)

// Validate reports the first thing in a trace that no observer writes. Everything that takes a Trace may rely on it.
func (t Trace) Validate() error {
	switch {
	case !knownABI(t.Arch):
		return fmt.Errorf("unknown architecture %d", t.Arch)
	case len(t.Epochs) > maxEpochs, len(t.Cells) > maxCells, len(t.Bursts) > maxBursts,
		len(t.Account.Losses) > maxMissed, len(t.Account.Gaps) > maxMissed:
		return fmt.Errorf("too large: %d epochs, %d cells, %d bursts", len(t.Epochs), len(t.Cells), len(t.Bursts))
	}
	if err := t.validateEpochs(); err != nil {
		return err
	}
	for i, cell := range t.Cells {
		if err := t.validateCell(cell); err != nil {
			return fmt.Errorf("cell %d: %w", i, err)
		}
	}
	for i, burst := range t.Bursts {
		if err := t.validateBurst(burst); err != nil {
			return fmt.Errorf("burst %d: %w", i, err)
		}
	}
	for i, arg := range t.Args {
		if arg.Cell < 0 || arg.Cell >= len(t.Cells) || !knownCall(arg.Call) || arg.Index > 5 || !t.has(arg.First) {
			return fmt.Errorf("argument %d: no such cell, call, index or epoch", i)
		}
	}
	for i, denied := range t.Denied {
		if denied.Lane > LaneRuntime || !knownCall(denied.Call) || !t.has(denied.First) || !t.has(denied.Last) {
			return fmt.Errorf("denied call %d: no such lane, call or epoch", i)
		}
	}
	return nil
}

func (t Trace) validateEpochs() error {
	last := t.Length
	for i := len(t.Epochs) - 1; i >= 0; i-- {
		e := t.Epochs[i]
		if e.Start < 0 || e.Start > last {
			return fmt.Errorf("epoch %d begins at %s, after its end or before the container", i, e.Start)
		}
		if e.Cause > CauseReload || e.Stage > StageStop {
			return fmt.Errorf("epoch %d: unknown cause %d or stage %d", i, e.Cause, e.Stage)
		}
		last = e.Start
	}
	return nil
}

func (t Trace) validateCell(cell Cell) error {
	if cell.Lane == LaneNone || cell.Lane > LaneRuntime {
		return fmt.Errorf("unknown lane %d", cell.Lane)
	}
	if len(cell.Role.Exe) > maxExe {
		return fmt.Errorf("name of %d bytes", len(cell.Role.Exe))
	}
	for i, seen := range cell.Calls {
		if !knownCall(seen.Call) {
			return fmt.Errorf("call %d: no such call %d of %s", i, seen.Call.Nr, seen.Call.ABI)
		}
		if seen.Origin > OriginAnonymous {
			return fmt.Errorf("call %s: unknown origin %d", seen.Call, seen.Origin)
		}
		if err := t.validateCounts(seen.Epochs); err != nil {
			return fmt.Errorf("call %s: %w", seen.Call, err)
		}
	}
	return nil
}

func (t Trace) validateBurst(burst Burst) error {
	if burst.Cell < 0 || burst.Cell >= len(t.Cells) || !knownABI(burst.ABI) || burst.Stage > StageStop {
		return fmt.Errorf("no such cell %d, ABI %d or stage %d", burst.Cell, burst.ABI, burst.Stage)
	}
	for i, nr := range burst.Calls {
		if nr >= burstNrs || i > 0 && nr <= burst.Calls[i-1] {
			return fmt.Errorf("call number %d is too large or out of order", nr)
		}
	}
	return t.validateCounts(burst.Epochs)
}

func (t Trace) validateCounts(counts []EpochCount) error {
	if len(counts) == 0 {
		return fmt.Errorf("seen in no epoch")
	}
	for i, c := range counts {
		if c[0] >= uint64(len(t.Epochs)) || i > 0 && c[0] <= counts[i-1][0] {
			return fmt.Errorf("epoch %d is unknown or out of order", c[0])
		}
	}
	return nil
}

func (t Trace) has(epoch uint32) bool { return int64(epoch) < int64(len(t.Epochs)) }

func knownABI(a syscalls.ABI) bool { return a >= syscalls.X86_64 && a <= syscalls.ARM64 }

func knownCall(c syscalls.Call) bool { return knownABI(c.ABI) && c.Nr < syscalls.MaxNr }
