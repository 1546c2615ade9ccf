// SPDX-License-Identifier: Apache-2.0

package services

const rsyncdConf = `use chroot = yes
log file = /var/log/rsyncd/log
max verbosity = 3
[out]
  path = /srv/out
[in]
  path = /srv/in
  read only = no
  uid = root
  lock file = /run/rsyncd.lock
  max connections = 4
  post-xfer exec = echo "$RSYNC_MODULE_NAME $RSYNC_EXIT_STATUS" >>/var/tmp/after
`

func rsyncd() Service {
	rsync := func(want string, args ...string) do {
		return client(want, append([]string{"rsync", "--contimeout=5"}, args...)...)
	}
	send := rsync("", "-a", "{ROOT}/srv/source/", "rsync://127.0.0.1/in/tree/")
	return Service{
		Name: "rsyncd", Doc: "rsync daemon", Packages: []string{"rsync"},
		Args: []string{"/usr/bin/rsync", "--daemon", "--no-detach", "--address=127.0.0.1", "--config=/etc/rsyncd.whittle"},
		Dirs: []Dir{{Path: "/var/log/rsyncd"}, {Path: "/srv/in"}, {Path: "/srv/out"}, {Path: "/srv/source/sub"}},
		Files: []File{{Path: "/etc/rsyncd.whittle", Text: rsyncdConf}, {Path: "/srv/out/one.txt", Text: "out"}, {Path: "/srv/source/one.txt", Text: "in"},
			{Path: "/srv/source/sub/large.bin", Text: string(large(3 << 20))}},
		Ready: rsync("out", "rsync://127.0.0.1/"),
		Ops: []Op{
			{Name: "load", Doc: "modules are listed, files sent and fetched", Do: repeat(3, rsync("out", "rsync://127.0.0.1/"), rsync("one.txt", "rsync://127.0.0.1/out/"),
				send, client("one.txt", "sh", "-c", `d=$(mktemp -d); trap 'rm -rf "$d"' EXIT; rsync -a rsync://127.0.0.1/out/ "$d" && ls "$d"`))},
			{Name: "delta", Rare: true, Doc: "a large file that was changed is sent again, with checksums, compressed and in place", Do: all(send,
				admin("", "sh", "-c", "echo more >>/srv/source/sub/large.bin; touch -d @0 /srv/source/one.txt"),
				rsync("large.bin", "-avcz", "--no-whole-file", "--inplace", "{ROOT}/srv/source/", "rsync://127.0.0.1/in/tree/"), admin("", "cmp", "/srv/source/sub/large.bin", "/srv/in/tree/sub/large.bin"))},
			{Name: "backup", Rare: true, Doc: "what is replaced and removed is kept", Do: all(send, admin("", "sh", "-c", "echo other >/srv/source/one.txt"),
				rsync("", "-a", "--delete", "--backup", "--backup-dir=/old", "{ROOT}/srv/source/", "rsync://127.0.0.1/in/tree/"), contains("/srv/in/old/one.txt", ""))},
			{Name: "links", Rare: true, Doc: "links, attributes, a fifo and sparse files are sent", Do: all(
				admin("", "sh", "-c", "cd /srv/source && ln -f one.txt hard && ln -sf one.txt soft && rm -f fifo && mkfifo fifo && truncate -s 4M sparse && chmod 600 hard"),
				rsync("", "-aHSAX", "--fake-super", "{ROOT}/srv/source/", "rsync://127.0.0.1/in/links/"), admin("", "test", "-L", "/srv/in/links/soft"))},
			{Name: "preallocate", Rare: true, Doc: "space is allocated before a file is written, and the file synced", Do: rsync("", "-a", "--preallocate", "--fsync", "--ignore-times", "{ROOT}/srv/source/", "rsync://127.0.0.1/in/allocated/")},
			{Name: "hook", Rare: true, Doc: "a command is run after a transfer", Do: all(send, contains("/var/tmp/after", "in 0"))},
		},
	}
}

// committed makes a commit in a clone beside the container, and pushes it.
const committed = `set -e
d=$(mktemp -d); trap 'rm -rf "$d"' EXIT; cd "$d"
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@test GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@test
git clone -q git://127.0.0.1/one.git c; cd c
for n in $(seq "$1"); do head -c 2000 /dev/urandom >"f$n"; done
git add .; git commit -qm "$2"; git push -q origin "HEAD:refs/heads/$3"
git ls-remote origin
`

func gitDaemon() Service {
	push := func(files, message, branch string) do {
		return client("refs/heads/"+branch, "sh", "-c", committed, "sh", files, message, branch)
	}
	return Service{
		Name: "git-daemon", Doc: "git over its own protocol", Packages: []string{"git"},
		Args: []string{"/usr/bin/git", "daemon", "--reuseaddr", "--export-all", "--listen=127.0.0.1", "--base-path=/srv/git", "--enable=receive-pack", "--enable=upload-archive", "--log-destination=stderr"},
		Prepare: []Command{
			{Args: []string{"git", "init", "-q", "--bare", "/srv/git/one.git"}},
			{Args: []string{"git", "-C", "/srv/git/one.git", "symbolic-ref", "HEAD", "refs/heads/main"}},
		},
		Files: []File{{Path: "/etc/gitconfig", Text: "[gc]\n\tauto = 5000\n\tautoPackLimit = 3\n\tautoDetach = false\n[safe]\n\tdirectory = *\n[receive]\n\tunpackLimit = 20\n"}},
		Ready: client("", "git", "ls-remote", "git://127.0.0.1/one.git"),
		Ops: []Op{
			{Name: "load", Doc: "clones, and pushes of a commit", Do: repeat(2, push("3", "some", "main"), client("refs/heads/main", "git", "ls-remote", "git://127.0.0.1/one.git"))},
			{Name: "archive", Rare: true, Doc: "an archive, compressed by another program", Do: client("f1", "sh", "-c", "git archive --remote=git://127.0.0.1/one.git --format=tar.gz main | tar -tz")},
			{Name: "branch", Rare: true, Doc: "a branch is pushed and removed", Do: all(push("1", "a branch", "side"),
				client("", "sh", "-c", "d=$(mktemp -d) && git init -q $d && git -C $d push -q git://127.0.0.1/one.git :refs/heads/side; e=$?; rm -rf $d; exit $e"))},
			{Name: "large", Rare: true, Doc: "a push that is kept as a pack", Do: push("30", "many", "main")},
			{Name: "gc", Rare: true, Doc: "pushes until the repository is packed anew", Do: all(repeat(4, push("25", "more", "main")),
				eventually(admin("", "sh", "-c", "test $(ls /srv/git/one.git/objects/pack/*.pack | wc -l) -le 2")))},
			{Name: "hook", Rare: true, Doc: "a hook is run after a push", Do: all(
				admin("", "sh", "-c", "printf '#!/bin/sh\\ncat >/var/tmp/hooked\\n' >/srv/git/one.git/hooks/post-receive; chmod 755 /srv/git/one.git/hooks/post-receive"),
				push("1", "hooked", "main"), contains("/var/tmp/hooked", "refs/heads/main"))},
		},
	}
}
