// SPDX-License-Identifier: Apache-2.0

package observe

import "time"

// Until is the trace as it stood when the epoch began, for replaying how learning went on. The counts of denied calls
// cannot be split by epoch and stay whole, and so does the account: what was lost may have been lost before.
func (t Trace) Until(epoch uint32) Trace {
	if int(epoch) >= len(t.Epochs) {
		return t
	}
	until := Trace{
		Arch:    t.Arch,
		Length:  t.Epochs[epoch].Start,
		Epochs:  t.Epochs[:epoch:epoch],
		Cells:   make([]Cell, len(t.Cells)),
		Account: t.Account,
	}
	// Cells without calls stay: bursts and arguments know them by their index.
	for i, cell := range t.Cells {
		until.Cells[i] = Cell{Lane: cell.Lane, Role: cell.Role, Birth: cell.Birth}
		for _, seen := range cell.Calls {
			if counts := before(seen.Epochs, epoch); len(counts) > 0 {
				until.Cells[i].Calls = append(until.Cells[i].Calls, Seen{Call: seen.Call, Epochs: counts, Origin: seen.Origin})
			}
		}
	}
	for _, burst := range t.Bursts {
		if burst.Epochs = before(burst.Epochs, epoch); len(burst.Epochs) > 0 {
			until.Bursts = append(until.Bursts, burst)
		}
	}
	for _, arg := range t.Args {
		if arg.First < epoch {
			until.Args = append(until.Args, arg)
		}
	}
	for _, denied := range t.Denied {
		if denied.First < epoch {
			denied.Last = min(denied.Last, epoch-1)
			until.Denied = append(until.Denied, denied)
		}
	}
	return until
}

func before(counts []EpochCount, epoch uint32) []EpochCount {
	n := 0
	for n < len(counts) && counts[n].Epoch() < epoch {
		n++
	}
	return counts[:n:n]
}

// EpochEnd is when the epoch ended: at the beginning of the next, the last one at the trace's length.
func (t Trace) EpochEnd(epoch int) time.Duration {
	if epoch+1 < len(t.Epochs) {
		return t.Epochs[epoch+1].Start
	}
	return max(t.Length, t.Epochs[epoch].Start)
}

// Mark is the first epoch that began for this cause.
func (t Trace) Mark(cause Cause) (epoch int, ok bool) {
	for i, e := range t.Epochs {
		if e.Cause == cause {
			return i, true
		}
	}
	return 0, false
}

// Total of the counts.
func (s Seen) Total() (n uint64) {
	for _, e := range s.Epochs {
		n += e.Count()
	}
	return n
}
