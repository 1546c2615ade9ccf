// SPDX-License-Identifier: Apache-2.0

// Command mkimage makes an image of installed Debian packages or of a static program, for `podman load`:
//
//	go run ./testbed/mkimage -o redis.tar -name localhost/redis:test -package redis-server -follow '^redis' \
//		-entrypoint /usr/bin/redis-server
//	go run ./testbed/mkimage -o busybox.tar -name localhost/busybox:test -copy /usr/bin/busybox:/bin/busybox \
//		-link /bin/sh=busybox -entrypoint /bin/busybox
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/whittle-sec/whittle/internal/image"
	"github.com/whittle-sec/whittle/testbed"
)

// list is a flag that may be given more than once, or with commas.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(s string) error {
	*l = append(*l, strings.Split(s, ",")...)
	return nil
}

type options struct {
	out, name, follow, signal, user, dir         string
	packages, copies, links, entrypoint, command list
	environ                                      list
}

func main() {
	var o options
	flag.StringVar(&o.out, "o", "", "`FILE` to write")
	flag.StringVar(&o.name, "name", "", "name and tag: localhost/redis:test")
	flag.Var(&o.packages, "package", "installed Debian packages")
	flag.StringVar(&o.follow, "follow", "", "`REGEXP` of dependencies to take as well")
	flag.Var(&o.copies, "copy", "`SOURCE[:PATH]` of files to copy; programs must be static")
	flag.Var(&o.links, "link", "`PATH=TARGET` of symbolic links")
	flag.Var(&o.entrypoint, "entrypoint", "program and first arguments")
	flag.Var(&o.command, "cmd", "default arguments")
	flag.Var(&o.environ, "env", "environment: `NAME=VALUE`")
	flag.StringVar(&o.signal, "stop-signal", "", "stop signal: SIGQUIT")
	flag.StringVar(&o.user, "user", "", "user to run as")
	flag.StringVar(&o.dir, "workdir", "", "working directory")
	flag.Parse()
	if flag.NArg() > 0 || o.out == "" || o.name == "" {
		flag.Usage()
		os.Exit(2)
	}
	if err := write(o); err != nil {
		fmt.Fprintf(os.Stderr, "testbed: error: %v\n", err)
		os.Exit(1)
	}
}

func write(o options) error {
	files, err := collect(o)
	if err != nil {
		return err
	}
	config := image.Config{Name: o.name}
	config.Entrypoint, config.Cmd, config.Env = o.entrypoint, o.command, o.environ
	config.StopSignal, config.User, config.WorkingDir = o.signal, o.user, o.dir
	f, err := os.Create(o.out)
	if err != nil {
		return err
	}
	defer f.Close()
	buffered := bufio.NewWriterSize(f, 1<<20)
	if err := image.Write(buffered, config, files); err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return err
	}
	return f.Close()
}

// collect lets what the flags name replace what the packages have.
func collect(o options) ([]image.File, error) {
	byPath := make(map[string]image.File)
	if len(o.packages) > 0 {
		d := testbed.Debian{Packages: o.packages}
		if o.follow != "" {
			follow, err := regexp.Compile(o.follow)
			if err != nil {
				return nil, err
			}
			d.Follow = follow
		}
		files, err := d.Files(context.Background())
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			byPath[f.Path] = f
		}
	}
	for _, copied := range o.copies {
		source, path, ok := strings.Cut(copied, ":")
		if !ok {
			path = source
		}
		f, err := image.Host(source, path)
		if err != nil {
			return nil, err
		}
		byPath[f.Path] = f
	}
	for _, link := range o.links {
		path, target, ok := strings.Cut(link, "=")
		if !ok {
			return nil, fmt.Errorf("-link %s: want PATH=TARGET", link)
		}
		f := image.Symlink(path, target)
		byPath[f.Path] = f
	}
	out := make([]image.File, 0, len(byPath))
	for _, f := range byPath {
		out = append(out, f)
	}
	return out, nil
}
