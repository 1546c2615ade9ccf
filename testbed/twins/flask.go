// SPDX-License-Identifier: Apache-2.0

package twins

import (
	"bufio"
	"context"
	_ "embed"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/image"
	"github.com/whittle-sec/whittle/testbed/load"
)

//go:embed testdata/app.py
var flaskApp []byte

//go:embed testdata/page.html
var flaskPage []byte

// flask has one image: what hardens it is the start (an audit hook), which is the oracle's.
func flask(ctx context.Context, dir string) (Twin, error) {
	config := image.Config{Name: "localhost/flask:production"}
	config.Entrypoint = []string{"/usr/bin/gunicorn", "--chdir", "/srv", "--workers", "2", "--access-logfile", "/dev/null"}
	config.Cmd, config.StopSignal = []string{"app:app"}, "SIGTERM"
	config.Env = []string{"LANG=C.UTF-8"}
	made, err := bake(ctx, dir, config, contents{
		packages: []string{"python3-flask", "gunicorn", "dash", "netbase", "media-types"}, follow: `^(python3|libpython3|gunicorn)`,
		compiled: []string{"flask", "gunicorn.app.wsgiapp", "gunicorn.arbiter", "gunicorn.workers.sync", "gunicorn.glogging"},
		files: []image.File{
			image.Dir("srv", 0o755), image.Dir("srv/templates", 0o755),
			image.Data("srv/app.py", 0o644, flaskApp), image.Data("srv/templates/page.html", 0o644, flaskPage),
		},
	})
	if err != nil {
		return Twin{}, fmt.Errorf("%w; install it with `apt-get install python3-flask gunicorn`", err)
	}
	t := Twin{Name: "flask", Kind: "audit-python", Port: 8000, Production: made, Oracle: made,
		command: func(port int) []string { return []string{"--bind", fmt.Sprintf("127.0.0.1:%d", port), "app:app"} },
		talk:    load.HTTP("/", "flask"), rare: load.HTTP("/rare", "rare"), heavy: load.HTTP("/page", "<li>a note</li>"),
		more: []load.Talk{flaskNote},
	}
	for _, e := range []struct{ name, doc, event, expression string }{
		{"os-system", "os.system", `"event":"os.system"`, `[__import__('os').system("/bin/sh -c 'echo {Q} > {F}'"), open('{F}').read()][1]`},
		{"subprocess", "the subprocess module", `"event":"subprocess.Popen"`, `__import__('subprocess').check_output(['/bin/sh', '-c', 'echo {Q}'])`},
		{"ctypes", "libc's system(), of which no os.system tells", `"event":"ctypes.`, `[__import__('ctypes').CDLL(None).system(b'echo {Q} > {F}'), open('{F}').read()][1]`},
	} {
		t.exploit = append(t.exploit, Exploit{Name: e.name, Doc: "an expression that is evaluated runs a shell through " + e.doc,
			Reported: e.event, Run: evaluated("/eval", e.expression)})
	}
	return t, nil
}

// evaluated sends an expression, or whatever the path takes, that has a shell answer a question.
func evaluated(path, expression string) func(context.Context, load.Target) (bool, error) {
	return func(ctx context.Context, target load.Target) (shell bool, err error) {
		ctx, cancel := context.WithTimeout(ctx, shellWait)
		defer cancel()
		question, answer := riddle()
		x := strings.NewReplacer("{Q}", question, "{F}", fmt.Sprintf("/tmp/evaluated-%d", rand.Uint32())).Replace(expression)
		err = target.Ask(ctx, func(conn net.Conn, r *bufio.Reader, _ int) error {
			stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
			defer stop()
			status, body, err := load.Exchange(conn, r, "GET "+path+"?x="+url.QueryEscape(x)+" HTTP/1.1\r\nHost: twins\r\n\r\n")
			shell = strings.Contains(body, answer)
			if err == nil && status != 200 {
				err = fmt.Errorf("it is answered %d", status)
			}
			return err
		})
		return shell, err
	}
}

func flaskNote(conn net.Conn, r *bufio.Reader, _ int) error {
	status, _, err := load.Exchange(conn, r, "POST /note HTTP/1.1\r\nHost: twins\r\nContent-Length: 6\r\n\r\na note")
	if err == nil && status != 200 {
		err = fmt.Errorf("it answers %d", status)
	}
	return err
}
