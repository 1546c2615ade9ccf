// SPDX-License-Identifier: Apache-2.0

// A service that is renewed: it says who it is, finishes what it was asked when it is stopped, notices a second writer of its
// data, and misbehaves as MODE says.
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

// held open until the end: a file that is not referred to any more is closed when memory is collected.
var held *os.File

const lock, violations, boots = "/data/lock", "/data/violations", "/data/boots"

func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	mode := os.Getenv("MODE")
	write()
	switch mode {
	case "exit":
		fmt.Println("no licence")
		os.Exit(3)
	case "deaf":
		<-stop
		return
	case "slow":
		time.Sleep(700 * time.Millisecond)
	}
	l, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if mode == "mute" {
		<-stop
		return
	}
	who := os.Getenv("WHO")
	server := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/healthz" && mode == "sick" {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if ms, err := strconv.Atoi(q.URL.Query().Get("ms")); err == nil {
			time.Sleep(time.Duration(ms) * time.Millisecond)
		}
		fmt.Fprintf(w, "served by %q, process %d\n", who, os.Getpid())
	})}
	done := make(chan struct{})
	go func() {
		<-stop
		_ = server.Shutdown(context.Background())
		close(done)
	}()
	_ = server.Serve(l)
	<-done
}

// write as a service with one writer does: for as long as it lives, the lock is its own. The kernel takes it back at its end.
func write() {
	f, err := os.OpenFile(lock, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return // no data
	}
	held = f
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		note(violations)
	}
	note(boots)
}

func note(name string) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	if _, err := f.WriteString("x"); err != nil {
		panic(err)
	}
}
