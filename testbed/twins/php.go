// SPDX-License-Identifier: Apache-2.0

package twins

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/whittle-sec/whittle/internal/image"
	"github.com/whittle-sec/whittle/testbed/load"
)

//go:embed testdata/index.php
var phpApp []byte

// PHP is an application on PHP's own web server that gives a shell, and evaluates, what it is sent.
func PHP(ctx context.Context, dir string) (Twin, error) {
	return alone(ctx, dir, php)
}

// php has one image: what hardens it are settings (an audit hook), which are the oracle's.
func php(ctx context.Context, dir string) (Twin, error) {
	found, _ := filepath.Glob("/usr/bin/php[0-9]*.[0-9]*")
	if len(found) == 0 {
		return Twin{}, errors.New("there is no PHP; install it with `apt-get install php-cli`")
	}
	program := found[len(found)-1]
	name := filepath.Base(program) // php8.2
	config := image.Config{Name: "localhost/php:production"}
	config.Entrypoint, config.StopSignal = []string{program, "-t", "/srv"}, "SIGINT"
	config.Cmd = []string{"-S", "127.0.0.1:8000"}
	// What Debian's packages make when they are installed. FFI is for whoever asks, else PHP itself would refuse it to a web server.
	settings := "etc/php/" + strings.TrimPrefix(name, "php") + "/cli/conf.d"
	made, err := bake(ctx, dir, config, contents{
		packages: []string{name + "-cli", name + "-common", "dash", "netbase", "media-types"}, follow: `^(php|libphp)`,
		files: []image.File{
			image.Dir("srv", 0o755), image.Data("srv/index.php", 0o644, phpApp),
			image.Dir(settings, 0o755), image.Data(settings+"/20-modules.ini", 0o644, []byte("extension = posix\nextension = ffi\nffi.enable = 1\ndisplay_errors = 0\n")),
		},
	})
	if err != nil {
		return Twin{}, fmt.Errorf("%w; install it with `apt-get install %s-cli`", err, name)
	}
	t := Twin{Name: "php", Kind: "audit-php", Port: 8000, Production: made, Oracle: made,
		command: func(port int) []string { return []string{"-S", fmt.Sprintf("127.0.0.1:%d", port)} },
		talk:    load.HTTP("/", "php"), rare: load.HTTP("/rare", "rare space"), heavy: load.HTTP("/page", "a note</li>"),
	}
	for _, e := range []struct{ name, doc, event, path, text string }{
		{"command", "a host name that goes on with a command", `"event":"system"`, "/ping", "; echo {Q}"},
		{"backticks", "code that is evaluated, and has backticks", `"event":"shell_exec"`, "/eval", "`echo {Q}`"},
		{"ffi", "code that calls the C library's system()", `"event":"FFI"`, "/eval",
			`[FFI::cdef('int system(const char *);')->system('echo {Q} > {F}'), file_get_contents('{F}')][1]`},
	} {
		t.exploit = append(t.exploit, Exploit{Name: e.name, Doc: e.doc + ", runs a shell", Reported: e.event, Run: evaluated(e.path, e.text)})
	}
	return t, nil
}
