// SPDX-License-Identifier: Apache-2.0

package supervise

import "errors"

// maxParked calls of one container wait for Settle at once. What would be one more is refused.
const maxParked = 256

// ErrGone is returned, wrapped, for a call that nobody waits with any more: its caller died or was interrupted, it was
// answered before, or its container was removed.
var ErrGone = errors.New("the held call is gone")

// Settle answers a call whose judge said Later, once: only the first of several answers counts. Any goroutine may call
// it, also before the judge has returned; what that returns is of no account then. A verdict that says Later refuses.
func (s *Supervisor) Settle(h Held, v Verdict) error { return ErrGone }

// Waits reports whether a call still waits that the judge has at this moment or that is parked: see Held.Valid.
func (s *Supervisor) Waits(h Held) bool { return h.Valid() }
