// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net/url"

	"github.com/whittle-sec/whittle/testbed/services"
)

// victims are services with a hole, to be attacked only: the distribution's are not known to have one.
func victims() []services.Service { return []services.Service{pythonVictim()} }

// calculator evaluates what it is sent, which is the hole: an expression of Python can do whatever its process can.
const calculator = `import http.server, urllib.parse

class Calculator(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        try:
            result = str(eval(query['x'][0]))
        except BaseException as e:
            result = 'failed: %r' % e
        self.send_response(200)
        self.end_headers()
        self.wfile.write(result.encode())

http.server.HTTPServer(('127.0.0.1', 8000), Calculator).serve_forever()
`

func pythonVictim() services.Service {
	ready := func(ctx context.Context, i *services.Instance) error {
		got, err := evaluated(ctx, i, "6*7")
		if err == nil && got != "42" {
			err = fmt.Errorf("6*7 is answered %q", got)
		}
		return err
	}
	return services.Service{
		Name: "python-victim", Doc: "an HTTP server in Python that evaluates what it is sent; for the attacks", Packages: []string{"python3-minimal"},
		Args: []string{"/usr/bin/python3", "/srv/calculator.py"}, User: "www-data",
		Files: []services.File{{Path: "/srv/calculator.py", Text: calculator}},
		Ready: ready,
		Ops: []services.Op{{Name: "load", Doc: "expressions", Do: func(ctx context.Context, i *services.Instance) error {
			for range 30 {
				if err := ready(ctx, i); err != nil {
					return err
				}
			}
			_, err := evaluated(ctx, i, "open('/etc/hostname').read()")
			return err
		}}},
	}
}

// evaluated by the calculator.
func evaluated(ctx context.Context, i *services.Instance, expression string) (string, error) {
	resp, err := i.HTTP().Get("http://127.0.0.1:8000/?x=" + url.QueryEscape(expression))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return string(text), err
}
