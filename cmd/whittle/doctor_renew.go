// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"

	"github.com/whittle-sec/whittle/internal/gate"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/traffic"
)

// Checks of what a renewal needs, so that no connection is refused.

func checkTraffic(context.Context, *app) finding {
	if os.Geteuid() != 0 {
		return finding{Detail: "needs root to tell", Fix: "sudo whittle doctor"}
	}
	return trafficFinding(traffic.Supported())
}

func trafficFinding(err error) finding {
	switch {
	case err == nil:
		return finding{Answer: yes, Detail: "whittle renew can move listening sockets, in a network that stays"}
	case errors.Is(err, traffic.ErrUnsupported):
		return finding{Answer: no, Detail: err.Error(), Needs: "Linux 6.1 with CONFIG_CGROUP_BPF", Fix: fixOr(err, "renew with --strategy gate or restart")}
	}
	return finding{Detail: err.Error(), Fix: hint.Of(err)}
}

func checkGate(context.Context, *app) finding {
	if os.Geteuid() != 0 {
		return finding{Detail: "needs root to tell", Fix: "sudo whittle doctor"}
	}
	return gateFinding(gate.Supported())
}

func gateFinding(how string, err error) finding {
	if err != nil {
		return finding{Answer: no, Detail: err.Error(), Fix: fixOr(err, "containers with a network of their own can be renewed with --strategy restart only")}
	}
	return finding{Answer: yes, Detail: "whittle renew can let connections wait at the host: " + how}
}

func fixOr(err error, otherwise string) string {
	if h := hint.Of(err); h != "" {
		return h
	}
	return otherwise
}
