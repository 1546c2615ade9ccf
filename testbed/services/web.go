// SPDX-License-Identifier: Apache-2.0

package services

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"strings"
	"time"
)

// web servers.
func web() []Service {
	return []Service{nginx(), apache()}
}

// certificate for localhost with a serial number, and its key.
func certificate(serial int64) (cert, key string) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err) // rand.Reader does not fail
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(serial), DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, k.Public(), k)
	if err != nil {
		panic(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
}

// Serial of the certificate that is served at an address.
func (i *Instance) serial(ctx context.Context, address string) (int64, error) {
	raw, err := i.Dial(ctx, "tcp", address)
	if err != nil {
		return 0, err
	}
	defer raw.Close()
	// The certificate is our own, and all that is asked is which.
	conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // see above
	if err := conn.HandshakeContext(ctx); err != nil {
		return 0, err
	}
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64(), nil
}

// awaitSerial until a certificate is served.
func (i *Instance) awaitSerial(ctx context.Context, address string, want int64) error {
	return Eventually(ctx, 20*time.Second, func() error {
		got, err := i.serial(ctx, address)
		if err == nil && got != want {
			err = fmt.Errorf("the certificate served has serial %d, want %d", got, want)
		}
		return err
	})
}

// Request of HTTP; it returns the answer's status, header and body.
func (i *Instance) request(ctx context.Context, method, url string, body []byte) (int, http.Header, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	res, err := i.HTTP().Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer res.Body.Close()
	got, err := io.ReadAll(io.LimitReader(res.Body, 256<<20))
	return res.StatusCode, res.Header, got, err
}

// expect a status, and a text in the body.
func (i *Instance) expect(ctx context.Context, method, url string, body []byte, status int, text string) error {
	got, _, answer, err := i.request(ctx, method, url, body)
	if err != nil {
		return err
	}
	if got != status || !strings.Contains(string(answer), text) {
		return fmt.Errorf("%s %s answers %d %.200q, want %d and %q", method, url, got, answer, status, text)
	}
	return nil
}

func (i *Instance) get(ctx context.Context, url, text string) error {
	return i.expect(ctx, http.MethodGet, url, nil, http.StatusOK, text)
}

// getReady is a Ready.
func getReady(url, text string) func(context.Context, *Instance) error {
	return func(ctx context.Context, i *Instance) error { return i.get(ctx, url, text) }
}

// getOp is an operation of load: some pages, again and again.
func getOp(times int, urls ...string) func(context.Context, *Instance) error {
	return func(ctx context.Context, i *Instance) error {
		for range times {
			for _, url := range urls {
				if err := i.get(ctx, url, ""); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

// rewrite a file of the running container as its owner would: the inode stays.
func (i *Instance) rewrite(name, text string) error {
	return os.WriteFile(i.Path(name), []byte(text), 0o644)
}

// replace something in a file of the running container.
func (i *Instance) replace(name, old, new string) error {
	text, err := os.ReadFile(i.Path(name))
	if err != nil {
		return err
	}
	if !strings.Contains(string(text), old) {
		return fmt.Errorf("%s has no %q", name, old)
	}
	return i.rewrite(name, strings.ReplaceAll(string(text), old, new))
}

// rotated renames a log, tells the service, and waits until the log is there again with something in it.
func (i *Instance) rotated(ctx context.Context, name string, tell, use func() error) error {
	if err := os.Rename(i.Path(name), i.Path(name+".1")); err != nil {
		return err
	}
	if err := tell(); err != nil {
		return err
	}
	return Eventually(ctx, 20*time.Second, func() error {
		if err := use(); err != nil {
			return err
		}
		st, err := os.Stat(i.Path(name))
		if err == nil && st.Size() == 0 {
			err = fmt.Errorf("nothing is written to the new %s", name)
		}
		return err
	})
}

// large is content that no filesystem keeps for nothing.
func large(size int) []byte {
	out := make([]byte, size)
	for i := range out {
		out[i] = byte(i*7 + i>>8 + i>>16)
	}
	return out
}
