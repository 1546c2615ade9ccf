// SPDX-License-Identifier: Apache-2.0

// Makes a renewal, and is killed when a step begins: renewer SOCKET DIR STEP, with the request on standard input. As a process
// of its own, which the kernel clears away after.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"syscall"

	"github.com/whittle-sec/whittle/internal/engine/podman"
	"github.com/whittle-sec/whittle/internal/renew"
)

func main() {
	var q renew.Request
	if err := json.NewDecoder(os.Stdin).Decode(&q); err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
	r := renew.Runner{Engine: podman.New(os.Args[1]), Dir: os.Args[2], Tell: func(d renew.Done) {
		if string(d.Step) == os.Args[3] && d.State == renew.Begins {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // it is on its way
		}
	}}
	result, err := r.Run(context.Background(), q)
	fmt.Println(result, err) // it was not killed
}
