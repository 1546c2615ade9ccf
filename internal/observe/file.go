// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// maxTrace bounds the JSON of a trace: 300 calls in 10 cells over half an hour of epochs take about 20 MB.
const maxTrace = 64 << 20

// Write the trace as gzip'd JSON. Equal traces give equal bytes.
func Write(w io.Writer, t Trace) error {
	if err := t.Validate(); err != nil {
		return fmt.Errorf("writing a trace: %w", err)
	}
	zip := gzip.NewWriter(w)
	if err := json.NewEncoder(zip).Encode(t); err != nil {
		return fmt.Errorf("writing a trace: %w", err)
	}
	if err := zip.Close(); err != nil {
		return fmt.Errorf("writing a trace: %w", err)
	}
	return nil
}

// Read what Write wrote. The trace is valid when err is nil.
func Read(r io.Reader) (Trace, error) { return read(r, maxTrace) }

func read(r io.Reader, most int64) (Trace, error) {
	zip, err := gzip.NewReader(r)
	if err != nil {
		return Trace{}, fmt.Errorf("reading a trace: %w", err)
	}
	// One byte more than allowed, so that a longer one is told from one that just fits.
	limited := &io.LimitedReader{R: zip, N: most + 1}
	decoder := json.NewDecoder(limited)
	decoder.DisallowUnknownFields()
	var t Trace
	err = decoder.Decode(&t)
	if limited.N == 0 {
		return Trace{}, fmt.Errorf("reading a trace: more than %d bytes", most)
	}
	if err != nil {
		return Trace{}, fmt.Errorf("reading a trace: %w", err)
	}
	// The end must be reached: only there does gzip compare its checksum.
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = errors.New("something follows it")
		}
		return Trace{}, fmt.Errorf("reading a trace: %w", err)
	}
	if err := t.Validate(); err != nil {
		return Trace{}, fmt.Errorf("reading a trace: %w", err)
	}
	return t, nil
}
