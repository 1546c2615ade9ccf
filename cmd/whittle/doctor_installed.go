// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/install"
)

// Checks of what is installed around the agent: who keeps listeners, and which engines call.

// checkHolder looks whether somebody listens, and does not connect: the holder would take it for a new agent.
func checkHolder(_ context.Context, a *app) finding {
	socket, err := filepath.Abs(a.socket)
	if err != nil {
		return finding{Detail: err.Error()}
	}
	table, err := os.Open("/proc/net/unix")
	if err != nil {
		return finding{Detail: err.Error()}
	}
	defer table.Close()
	name := filepath.Join(filepath.Dir(socket), "holder.sock")
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		if listens(lines.Text(), name) {
			return finding{Answer: yes, Detail: name}
		}
	}
	if err := lines.Err(); err != nil {
		return finding{Detail: err.Error()}
	}
	return finding{Answer: no, Detail: "nobody keeps the listeners while the agent is restarted", Fix: "the agent starts a holder: sudo whittle agent"}
}

// listens tells whether a line of /proc/net/unix is a listening socket of this name: "Num RefCount Protocol Flags …  Path".
func listens(line, name string) bool {
	fields := strings.Fields(line)
	const accepts = "00010000" // __SO_ACCEPTCON
	return len(fields) == 8 && fields[3] == accepts && fields[7] == name
}

// checkCalls looks whether an engine's configuration has everything that `whittle install` would write.
func checkCalls(engine string) func(context.Context, *app) finding {
	return func(_ context.Context, a *app) finding {
		if _, err := exec.LookPath(engineProgram[engine]); err != nil {
			return finding{Answer: no, Detail: "there is no " + engineProgram[engine] + " here", Fix: "nothing needs to be done"}
		}
		o := install.Options{Engine: engine, DryRun: true}
		var err error
		if o.Whittle, err = os.Executable(); err == nil {
			o.Socket, err = filepath.Abs(a.socket)
		}
		if err != nil {
			return finding{Detail: err.Error()}
		}
		r, err := install.Install(o)
		return callsFinding(engine, len(r.Changes), err)
	}
}

// engineProgram is the daemon, or what does its work.
var engineProgram = map[string]string{"podman": "podman", "docker": "dockerd", "containerd": "containerd"}

func callsFinding(engine string, changes int, err error) finding {
	switch {
	case err != nil:
		return finding{Detail: err.Error(), Fix: hint.Of(err)}
	case changes > 0:
		return finding{Answer: no, Detail: "its containers are learned from late, or not at all", Fix: "sudo whittle install --engine " + engine}
	}
	return finding{Answer: yes}
}

func checkFDStore(ctx context.Context, _ *app) finding {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return finding{Answer: no, Detail: "systemd does not run here", Fix: "nothing needs to be done: the holder outlives the agent without it"}
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	text, err := exec.CommandContext(ctx, "systemctl", "show", "whittle-holder.service",
		"--property=LoadState,ActiveState,FileDescriptorStoreMax").Output()
	if err != nil {
		return finding{Detail: "systemctl: " + err.Error()}
	}
	return storeFinding(string(text))
}

// storeFinding of what systemctl show says.
func storeFinding(text string) finding {
	says := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		says[key] = value
	}
	most, kept := says["FileDescriptorStoreMax"]
	switch {
	case says["LoadState"] == "" || !kept:
		return finding{Detail: "systemd says nothing of it"}
	case says["LoadState"] != "loaded":
		return finding{Answer: no, Detail: "whittle-holder.service is " + says["LoadState"], Fix: "install packaging/systemd, then: systemctl enable --now whittle-holder whittle"}
	case says["ActiveState"] != "active":
		return finding{Answer: no, Detail: "whittle-holder.service is " + says["ActiveState"], Fix: "sudo systemctl enable --now whittle-holder"}
	case most == "0":
		return finding{Answer: no, Detail: "whittle-holder.service may store nothing", Fix: "set FileDescriptorStoreMax= as packaging/systemd does"}
	}
	return finding{Answer: yes, Detail: "for up to " + most + " listeners"}
}
