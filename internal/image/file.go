// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
)

// maxFile bounds one file of an image.
const maxFile = 1 << 30

// File of an image. Exactly one of Source, Data and Link says what it is; without any it is an empty file, or a directory if Mode
// says so.
type File struct {
	Path     string      // in the image, clean, without a leading slash
	Mode     fs.FileMode // permissions, setuid, setgid, sticky, and fs.ModeDir
	UID, GID int
	Source   string // a regular file of this machine
	Data     []byte
	Link     string // target of a symbolic link
}

// Dir is an empty directory of root's.
func Dir(name string, mode fs.FileMode) File { return File{Path: clean(name), Mode: mode | fs.ModeDir} }

// Data is a file of root's with these contents.
func Data(name string, mode fs.FileMode, data []byte) File {
	return File{Path: clean(name), Mode: mode, Data: data}
}

// Symlink to a target.
func Symlink(name, target string) File { return File{Path: clean(name), Mode: 0o777, Link: target} }

// Host takes a file, link or directory (without what is in it) of this machine as it is, to the given path in the image.
// Devices, FIFOs and sockets are refused.
func Host(source, name string) (File, error) {
	st, err := os.Lstat(source)
	if err != nil {
		return File{}, fmt.Errorf("take %s into an image: %w", source, err)
	}
	const kept = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky
	f := File{Path: clean(name), Mode: st.Mode() & kept}
	if owner, ok := st.Sys().(*syscall.Stat_t); ok {
		f.UID, f.GID = int(owner.Uid), int(owner.Gid)
	}
	switch st.Mode().Type() {
	case 0:
		f.Source = source
	case fs.ModeDir:
		f.Mode |= fs.ModeDir
	case fs.ModeSymlink:
		if f.Link, err = os.Readlink(source); err != nil {
			return File{}, fmt.Errorf("take %s into an image: %w", source, err)
		}
	default:
		return File{}, fmt.Errorf("take %s into an image: it is %s", source, st.Mode().Type())
	}
	return f, nil
}

func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

func (f File) write(out *tar.Writer) error {
	if f.Path == "" || clean(f.Path) != f.Path {
		return fmt.Errorf("%q is not a path in an image", f.Path)
	}
	header := &tar.Header{
		Name: f.Path, Typeflag: tar.TypeReg, Mode: mode(f.Mode), Uid: f.UID, Gid: f.GID, ModTime: epoch, Format: tar.FormatPAX,
	}
	switch {
	case f.Link != "":
		header.Typeflag, header.Linkname = tar.TypeSymlink, f.Link
	case f.Mode.IsDir():
		header.Typeflag = tar.TypeDir
		header.Name += "/"
	case f.Source != "":
		return f.copy(out, header)
	}
	header.Size = int64(len(f.Data))
	if err := out.WriteHeader(header); err != nil {
		return fmt.Errorf("write %s: %w", f.Path, err)
	}
	if _, err := out.Write(f.Data); err != nil {
		return fmt.Errorf("write %s: %w", f.Path, err)
	}
	return nil
}

func (f File) copy(out *tar.Writer, header *tar.Header) error {
	in, err := os.Open(f.Source)
	if err != nil {
		return fmt.Errorf("write %s: %w", f.Path, err)
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return fmt.Errorf("write %s: %w", f.Path, err)
	}
	if !st.Mode().IsRegular() || st.Size() > maxFile {
		return fmt.Errorf("write %s: %s is not a regular file below %d bytes", f.Path, f.Source, maxFile)
	}
	header.Size = st.Size()
	if err := out.WriteHeader(header); err != nil {
		return fmt.Errorf("write %s: %w", f.Path, err)
	}
	if _, err := io.CopyN(out, in, st.Size()); err != nil {
		return fmt.Errorf("write %s: %w", f.Path, err)
	}
	return nil
}

// mode is what tar calls the bits that Go keeps elsewhere.
func mode(m fs.FileMode) int64 {
	bits := int64(m.Perm())
	for flag, bit := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if m&flag != 0 {
			bits |= bit
		}
	}
	return bits
}
