// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ParseSignal understands what engines call a signal: "3", "QUIT", "sigquit". It is 0, which stands for SIGTERM, when the text
// means no signal.
func ParseSignal(said string) int {
	if number, err := strconv.Atoi(said); err == nil {
		if number < 1 || number > 64 {
			return 0
		}
		return number
	}
	name := strings.ToUpper(said)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	return int(unix.SignalNum(name))
}
