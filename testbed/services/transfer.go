// SPDX-License-Identifier: Apache-2.0

package services

import (
	"golang.org/x/sys/unix"
)

// transfers of files, and logins.
func transfers() []Service { return []Service{sshd(), rsyncd(), gitDaemon()} }

const sshdConf = `Port 22
ListenAddress 127.0.0.1
HostKey /etc/ssh/whittle_host
AuthorizedKeysFile /etc/ssh/whittle_keys/%u
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM yes
MaxStartups 50
PidFile /run/sshd.pid
Subsystem sftp /usr/lib/openssh/sftp-server
`

func sshd() Service {
	options := []string{"-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes",
		"-o", "IdentitiesOnly=yes", "-o", "IdentityFile={ROOT}/srv/client/key"}
	with := func(program string, args ...string) []string {
		return append(append([]string{program}, options...), args...)
	}
	login := client("guest", with("ssh", "guest@127.0.0.1", "id", "-un")...)
	return Service{
		Name: "sshd", Doc: "logins by key", Packages: []string{"openssh-server", "openssh-client", "openssh-sftp-server"},
		Args:  []string{"/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh/whittle_config"},
		Dirs:  []Dir{{Path: "/run/sshd"}, {Path: "/srv/client"}, {Path: "/etc/ssh/whittle_keys"}},
		Files: []File{{Path: "/etc/ssh/whittle_config", Text: sshdConf}},
		Prepare: []Command{
			{Args: []string{"useradd", "-m", "-s", "/bin/sh", "guest"}},
			{Args: []string{"ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/etc/ssh/whittle_host"}},
			{Args: []string{"ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/srv/client/key"}},
			{Args: []string{"cp", "/srv/client/key.pub", "/etc/ssh/whittle_keys/guest"}},
		},
		Ready: converse("tcp", "127.0.0.1:22", step{"", "SSH-2.0"}),
		Ops: []Op{
			{Name: "load", Doc: "logins that run a command", Do: repeat(2, login)},
			{Name: "reload", Rare: true, Doc: "a second port, SIGHUP executes sshd anew", Do: all(changed("/etc/ssh/whittle_config", "Port 22\n", "Port 22\nPort 23\n"),
				signal(unix.SIGHUP), eventually(client("guest", with("ssh", "-p", "23", "guest@127.0.0.1", "id", "-un")...)))},
			{Name: "sftp", Rare: true, Doc: "files are copied there and back, renamed and removed", Do: clientInput("there",
				"put /etc/passwd there\nget there /dev/null\nmkdir d\nrename there d/there\nls -l d\nchmod 600 d/there\nsymlink d/there l\ndf\nrm d/there\nrm l\nrmdir d\n",
				with("sftp", "-q", "-b", "-", "guest@127.0.0.1")...)},
			{Name: "terminal", Rare: true, Doc: "a shell in a terminal", Do: clientInput("/dev/pts/", "tty\nexit\n", with("ssh", "-tt", "guest@127.0.0.1")...)},
			{Name: "forward", Rare: true, Doc: "a connection is forwarded to sshd itself", Do: clientInput("SSH-2.0", "x\n", with("ssh", "-W", "127.0.0.1:22", "guest@127.0.0.1")...)},
			{Name: "refuse", Rare: true, Doc: "a user who has no key there", Do: client("Permission denied", "sh", "-c", `"$@" 2>&1; true`, "sh",
				"ssh", "-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "-i", "{ROOT}/srv/client/key", "nobody@127.0.0.1", "id")},
		},
	}
}
