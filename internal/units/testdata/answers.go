// SPDX-License-Identifier: Apache-2.0

// Answers every HTTP request with what the kernel says to getpriority, which tells the profile that it runs under: answers
// ADDRESS, or the socket that systemd gave it (LISTEN_FDS).
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve() error {
	l, err := listen()
	if err != nil {
		return err
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _, errno := syscall.Syscall(syscall.SYS_GETPRIORITY, 0, 0, 0)
		fmt.Fprintf(w, "profile %d by %s\n", int(errno), os.Args[1])
	})}
	ended := make(chan error, 1)
	go func() {
		<-end
		err := l.Close()
		time.Sleep(100 * time.Millisecond) // what was accepted and is not read yet, Shutdown drops
		ended <- errors.Join(err, server.Shutdown(context.Background()))
	}()
	if err := server.Serve(l); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return <-ended
}

func listen() (net.Listener, error) {
	if os.Getenv("LISTEN_FDS") == "1" {
		return net.FileListener(os.NewFile(3, "systemd"))
	}
	return net.Listen("tcp", os.Args[1])
}
