// SPDX-License-Identifier: Apache-2.0

package services

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
)

// directories keep entries by their keys.
func directories() []Service { return []Service{slapd(), etcd()} }

const slapdConf = `include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload back_monitor
pidfile /run/slapd/slapd.pid
argsfile /run/slapd/slapd.args
TLSCertificateFile /etc/ldap/cert.pem
TLSCertificateKeyFile /etc/ldap/key.pem
threads 4
database config
rootdn "cn=admin,cn=config"
rootpw word
database mdb
suffix "dc=test"
rootdn "cn=admin,dc=test"
rootpw word
directory /var/lib/ldap
maxsize 104857600
index objectClass eq
database monitor
`

const slapdTree = `dn: dc=test
objectClass: dcObject
objectClass: organization
o: test
dc: test

dn: cn=one,dc=test
objectClass: inetOrgPerson
cn: one
sn: person
userPassword: word
`

func slapd() Service {
	cert, key := certificate(1)
	ldap := func(what, who, want, input string, args ...string) do {
		return clientInput(want, input, append([]string{what, "-x", "-H", "ldap://127.0.0.1", "-D", "cn=admin," + who, "-w", "word"}, args...)...)
	}
	search := client("sn: person", "ldapsearch", "-x", "-LLL", "-H", "ldap://127.0.0.1", "-b", "dc=test", "(cn=one)")
	var people strings.Builder
	for n := range 300 {
		fmt.Fprintf(&people, "dn: cn=p%d,dc=test\nobjectClass: inetOrgPerson\ncn: p%d\nsn: many\nmail: p%d@mail.test\n\n", n, n, n)
	}
	return Service{
		Name: "slapd", Doc: "LDAP server (OpenLDAP)", Packages: []string{"slapd", "ldap-utils"},
		Args: []string{"/usr/sbin/slapd", "-d", "0", "-u", "openldap", "-g", "openldap", "-f", "/etc/ldap/whittle.conf", "-h", "ldap://127.0.0.1/ ldaps://127.0.0.1/"},
		Hide: []string{"/var/lib/ldap"}, Dirs: []Dir{{Path: "/var/lib/ldap", Owner: "openldap"}, {Path: "/run/slapd", Owner: "openldap"}},
		Files: []File{
			{Path: "/etc/ldap/whittle.conf", Text: slapdConf}, {Path: "/etc/ldap/tree.ldif", Text: slapdTree},
			{Path: "/etc/ldap/cert.pem", Text: cert}, {Path: "/etc/ldap/key.pem", Text: key, Owner: "openldap", Mode: 0o600},
		},
		Prepare: []Command{{User: "openldap", Args: []string{"slapadd", "-f", "/etc/ldap/whittle.conf", "-l", "/etc/ldap/tree.ldif"}}},
		Ready:   search,
		Ops: []Op{
			{Name: "load", Doc: "searches, of what is there and what is not", Do: repeat(15, search, client("", "ldapsearch", "-x", "-LLL", "-H", "ldap://127.0.0.1", "-b", "dc=test", "(cn=none)"))},
			{Name: "change", Rare: true, Doc: "an entry is added, modified, renamed and deleted", Do: all(
				ldap("ldapadd", "dc=test", "adding", "dn: cn=new,dc=test\nobjectClass: inetOrgPerson\ncn: new\nsn: x\n"),
				ldap("ldapmodify", "dc=test", "modifying", "dn: cn=new,dc=test\nchangetype: modify\nadd: mail\nmail: new@mail.test\n"),
				ldap("ldapmodrdn", "dc=test", "", "", "-r", "cn=new,dc=test", "cn=newer"), ldap("ldapdelete", "dc=test", "", "", "cn=newer,dc=test"))},
			{Name: "import", Rare: true, Doc: "300 entries are added", Do: all(ldap("ldapadd", "dc=test", "cn=p299", people.String(), "-c"), ldap("ldapsearch", "dc=test", "p299@mail.test", "", "-b", "dc=test", "-E", "pr=50/noprompt", "(sn=many)"))},
			{Name: "reconfigure", Rare: true, Doc: "cn=config: an index is added, which is then built, and the number of threads changed", Do: all(
				ldap("ldapmodify", "cn=config", "modifying", "dn: olcDatabase={1}mdb,cn=config\nchangetype: modify\nadd: olcDbIndex\nolcDbIndex: mail eq\n"),
				ldap("ldapmodify", "cn=config", "modifying", "dn: cn=config\nchangetype: modify\nreplace: olcThreads\nolcThreads: 8\n"), search)},
			{Name: "password", Rare: true, Doc: "a password is changed, and used", Do: all(ldap("ldappasswd", "dc=test", "", "", "-s", "other", "cn=one,dc=test"),
				client("dn:cn=one,dc=test", "ldapwhoami", "-x", "-H", "ldap://127.0.0.1", "-D", "cn=one,dc=test", "-w", "other"))},
			{Name: "tls", Rare: true, Doc: "a connection over TLS", Do: served("127.0.0.1:636", 1)},
			{Name: "monitor", Rare: true, Doc: "cn=Monitor is read", Do: ldap("ldapsearch", "dc=test", "monitorOp", "", "-b", "cn=Operations,cn=Monitor", "+")},
		},
	}
}

func etcd() Service {
	const base = "http://127.0.0.1:2379/v3/"
	b64 := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	call := func(path, body, want string) do { return answer(http.MethodPost, base+path, []byte(body), 200, want) }
	put := func(key, value string) do {
		return call("kv/put", fmt.Sprintf(`{"key":%q,"value":%q}`, b64(key), b64(value)), "revision")
	}
	get := call("kv/range", fmt.Sprintf(`{"key":%q}`, b64("one")), b64("a value"))
	return Service{
		Name: "etcd", Doc: "key-value store in Go with a log on disk", Packages: []string{"etcd-server"}, User: "etcd",
		Args: []string{"/usr/bin/etcd", "--data-dir=/var/lib/etcd/data", "--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
			"--listen-peer-urls=http://127.0.0.1:2380", "--snapshot-count=200", "--logger=zap", "--log-level=warn"},
		Hide: []string{"/var/lib/etcd"}, Dirs: []Dir{{Path: "/var/lib/etcd", Owner: "etcd", Mode: 0o700}},
		Ready: all(put("one", "a value"), get),
		Ops: []Op{
			{Name: "load", Doc: "keys are put and read", Do: repeat(30, put("one", "a value"), get)},
			{Name: "backup", Rare: true, Doc: "the database is sent as a snapshot", Do: call("maintenance/snapshot", "{}", "blob")},
			{Name: "compact", Rare: true, Doc: "old revisions are removed, and the database is written anew", Do: all(
				call("kv/compaction", `{"revision":"5","physical":true}`, "revision"), call("maintenance/defragment", "{}", "{"), get)},
			{Name: "lease", Rare: true, Doc: "a key goes when its lease ends", Do: all(call("lease/grant", `{"TTL":"1","ID":"7"}`, `"ID":"7"`),
				call("kv/put", fmt.Sprintf(`{"key":%q,"value":%q,"lease":"7"}`, b64("leased"), b64("x")), "revision"),
				call("lease/revoke", `{"ID":"7"}`, "revision"), call("kv/range", fmt.Sprintf(`{"key":%q,"count_only":true}`, b64("leased")), "revision"))},
			{Name: "snapshot", Rare: true, Doc: "so many keys are put that the log is cut by a snapshot", Do: all(repeat(220, put("many", "x")),
				eventually(admin(".snap", "ls", "/var/lib/etcd/data/member/snap")))},
			{Name: "large", Rare: true, Doc: "a value of 1 MB", Do: put("large", string(large(1<<20)))},
			{Name: "metrics", Rare: true, Doc: "statistics over HTTP", Do: page("http://127.0.0.1:2379/metrics", "process_open_fds")},
		},
	}
}
