#!/bin/bash
# The example greeter-notice: the notices that it prints with the clients of each protocol,
# and the texts that it refuses. The log shows what the clients print; if that changes, the
# manual must be updated.
image=notices packages="openssh-client putty-tools dropbear-bin mariadb-client-core ldap-utils redis-tools swaks postfix irssi go-sendxmpp sieve-connect postgresql-client"
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/manual.sh"

create_container
rm -f "$container"/root/etc/systemd/system/multi-user.target.wants/postfix.service
echo mail.example.org >"$container/root/etc/hostname"
write /etc/hosts <<<$'127.0.0.1 localhost\n192.0.2.1 mail.example.org example.org'
boot
install_greeter
run ip address add 192.0.2.1/24 dev lo
section="SSH, DATABASES, CHAT: A NOTICE"
text="Closed for maintenance until 18:00 UTC"

notice() { run sh /usr/share/doc/greeter/examples/greeter-notice "$@"; }

# shown TEXT...: the last program printed each of these texts, and the manual has them.
shown() {
	local words
	expect_output "$@"
	for words; do expect_manual "$words"; done
}

# open_port PORT PROTOCOL TEXT: serves the notice with the commands of the manual, which
# has those for SSH on port 22.
open_port() {
	local commands
	commands=$(block "$section" 1 | sed "s/22\.notice/$1.notice/; s/ssh '[^']*'/$2 \"\$1\"/")
	run sh -euc "$commands" sh "$3"
	block "$section" 2 | sed "s/22/$1/" | write "/etc/greeter/greeter.toml.d/$1.toml"
	run sh -euc "$(block "$section" 3 | sed "s/22/$1/")" >"$container/open" 2>&1 || fail "$(cat "$container/open")"
}

# refused REASON PROTOCOL TEXT: the text is refused with this reason, and nothing is printed.
refused() {
	expect_status 1 notice "$2" "$3"
	[[ $output == "greeter-notice: $1" ]] || fail "$output"
}

check "texts that cannot be encoded are refused, with the reason and status 1"
for protocol in ssh mysql ldap http; do
	refused "the text is empty" "$protocol" ""
	refused "the text has a line break; write it as one line" "$protocol" $'one\ntwo'
	refused "the text has a line break; write it as one line" "$protocol" $'one\rtwo'
	refused "the text has a control character" "$protocol" $'one\ttwo'
	refused "the text has a control character" "$protocol" $'\e[2J'
	refused "the text has a control character" "$protocol" $'\x7f'
	refused "the text has a control character" "$protocol" $'\xc2\x85'
	refused "the text is not valid UTF-8" "$protocol" $'\xff'
	refused "the text has 401 bytes; the maximum is 400" "$protocol" "$(printf %0401d 0)"
	expect_match . notice "$protocol" "$(printf %0400d 0)"
done
for protocol in ftp imap lmtp pop3 smtp ssh; do
	refused "clients of $protocol expect ASCII, and the text has other characters" "$protocol" "bis spätestens 18 Uhr"
done
expect_status 2 notice gopher "$text"
expect_match "^greeter-notice: unknown protocol 'gopher'; known are: " echo "$output"
expect_status 2 notice ssh
expect_match "^greeter-notice: usage: greeter-notice PROTOCOL TEXT >FILE" echo "$output"
# A file that cannot be written.
expect_status 1 run sh -c 'exec sh /usr/share/doc/greeter/examples/greeter-notice ssh hello >/dev/full 2>/dev/null'

check "with bash as sh, as on Fedora, and dash, as on Debian, the bytes are the same"
for protocol in ftp git http imap irc ldap lmtp managesieve mysql nntp pop3 redis rsync smtp ssh xmpp; do
	[[ $(notice "$protocol" "$text" | sha256sum) == "$(run bash /usr/share/doc/greeter/examples/greeter-notice "$protocol" "$text" | sha256sum)" ]] ||
		fail "$protocol: dash and bash print different bytes"
done
expect /usr/bin/dash run readlink -f /bin/sh

check "the notices for SMTP, FTP, HTTP, POP3, NNTP, IMAP, rsync and git are those of greetings.toml"
run install -D -m644 /usr/share/doc/greeter/examples/greetings.toml /etc/greeter/greeter.toml.d/greetings.toml
while read -r port protocol words; do
	[[ $(notice "$protocol" "$words"; echo .) == "$(run greeter --preview "$port"; echo .)" ]] ||
		fail "$protocol: $(notice "$protocol" "$words") instead of $(run greeter --preview "$port")"
done <<'END'
25 smtp mail.example.org Closed for maintenance, please try again later
21 ftp Closed for maintenance
80 http Closed for maintenance. Back in an hour.
110 pop3 Service unavailable for maintenance
119 nntp Closed for maintenance
143 imap Closed for maintenance
873 rsync Closed for maintenance
9418 git Closed for maintenance
END
run rm /etc/greeter/greeter.toml.d/greetings.toml

check "SSH: ssh, scp, sftp and PuTTY's programs show the text; dbclient does not"
open_port 22 ssh "$text"
for command in "ssh -T -F none 192.0.2.1" "scp -F none 192.0.2.1:file ." "sftp -F none 192.0.2.1"; do
	# shellcheck disable=SC2086 # one word per argument
	program 255 $command
	shown "Received disconnect from 192.0.2.1 port 22:7: $text"
done
for command in "plink -batch 192.0.2.1 true" "pscp -batch 192.0.2.1:file ." "psftp -batch 192.0.2.1"; do
	# shellcheck disable=SC2086
	program 1 $command
	[[ $output == "FATAL ERROR: Remote side sent disconnect message"$'\ntype 7 (service not available):\n'"\"$text\"" ]] ||
		fail "$output"
done
program 0 dbclient 192.0.2.1 true
shown "exited: Disconnect received"
expect_no_output maintenance

check "SSH: a text of 400 bytes is shown to its end"
long=$(printf %0399d 0)1
open_port 22 ssh "$long"
run systemctl try-reload-or-restart greeter@22.service
program 255 ssh -T -F none 192.0.2.1
[[ ${output%%$'\n'*} == "Received disconnect from 192.0.2.1 port 22:7: $long" ]] || fail "$output"

check "MySQL and MariaDB: mariadb shows the text, with TLS as status 2002"
open_port 3306 mysql "$text"
program 1 mariadb --host=192.0.2.1 --skip-ssl
shown "ERROR 1053 (HY000): $text"
program 1 mariadb --host=192.0.2.1
shown "ERROR 2002 (HY000): Received error packet before completion of TLS handshake. The authenticity of the following error cannot be verified: 1053 - $text"

check "LDAP: ldapsearch and ldapwhoami show the text, not with StartTLS"
open_port 389 ldap "$text"
for command in "ldapsearch -x" "ldapsearch" "ldapwhoami -x"; do
	# shellcheck disable=SC2086
	program 52 $command -H ldap://192.0.2.1
	shown "Server is unavailable (52)" "additional info: $text"
done
program 1 ldapsearch -ZZ -x -H ldap://192.0.2.1
shown "Bad parameter to an ldap routine"
expect_no_output maintenance

check "Redis: redis-cli shows the text"
open_port 6379 redis "$text"
program 0 redis-cli -h 192.0.2.1 ping
shown "ERR $text"

check "LMTP: Postfix keeps the mail queued and logs the text, swaks shows it"
open_port 24 lmtp "mail.example.org $text"
program 21 swaks --server 192.0.2.1 --port 24 --protocol LMTP --to you@example.org
expect_output "<** 421 4.3.2 mail.example.org $text"
write /etc/postfix/main.cf <<'END'
compatibility_level = 3.6
myhostname = sender.example.net
mydestination =
inet_interfaces = loopback-only
default_transport = lmtp:inet:192.0.2.1:24
maillog_file = /var/log/postfix.log
END
run systemctl start postfix.service
run sh -c 'printf "Subject: hello\n\nStill there?\n" | sendmail -f me@example.net you@example.org'
expect_within 30 run grep -q status= /var/log/postfix.log
program 0 grep status= /var/log/postfix.log
expect_output "status=deferred (host 192.0.2.1[192.0.2.1] refused to talk to me: 421 4.3.2 mail.example.org $text)"
run systemctl stop postfix.service

check "IRC: irssi shows the text"
open_port 6667 irc "$text"
# irssi would connect again after some time, so it is ended then.
program 124 env TERM=xterm timeout 5 script --quiet --command 'irssi -c 192.0.2.1 -n me' /dev/null
plain=$(sed 's/\x1b[[(][0-9;?]*[a-zA-Z]//g' <<<"$output")
[[ $plain == *"ERROR $text"* ]] || fail "$plain"
expect_manual "ERROR $text"

check "XMPP: go-sendxmpp shows the text"
open_port 5222 xmpp "$text"
program 1 sh -c 'echo hello | go-sendxmpp --suppress-root-warning -u me@example.org -p secret -j 192.0.2.1:5222 you@example.org'
shown "failed to connect to server: stream error: $text"

check "ManageSieve: sieve-connect shows the text only with --debug"
open_port 4190 managesieve "$text"
program 255 sieve-connect --notlsverify --server 192.0.2.1 --user me --list
shown "Connection dropped unexpectedly when trying to read"
expect_no_output maintenance
program 255 sieve-connect --notlsverify --debug --server 192.0.2.1 --user me --list
expect_output "<<< BYE (TRYLATER) \"$text\""

check "characters that are not ASCII, and those that a protocol quotes"
words="Grüße & \"<wir>\" öffnen um \\18:00"
for port_and_protocol in "3306 mysql" "389 ldap" "6379 redis" "5222 xmpp" "4190 managesieve"; do
	# shellcheck disable=SC2086 # two words
	open_port $port_and_protocol "$words"
	run systemctl try-reload-or-restart "greeter@${port_and_protocol% *}.service"
done
program 1 mariadb --host=192.0.2.1 --skip-ssl
expect_output "ERROR 1053 (HY000): $words"
program 52 ldapsearch -x -H ldap://192.0.2.1
expect_output "additional info: $words"
program 0 redis-cli -h 192.0.2.1 ping
expect_output "ERR $words"
program 1 sh -c 'echo hello | go-sendxmpp --suppress-root-warning -u me@example.org -p secret -j 192.0.2.1:5222 you@example.org'
expect_output "stream error: $words"
program 255 sieve-connect --notlsverify --debug --server 192.0.2.1 --user me --list
# It prints what it receives with percent signs.
expect_output '<<< BYE (TRYLATER) "Gr%C3%BC%C3%9Fe & \"<wir>\" %C3%B6ffnen um \\18:00"'

check "PostgreSQL: psql shows no text unless TLS is off, so there is no notice for it"
expect_status 2 notice postgresql "$text"
printf 'E\0\0\0\062SFATAL\0VFATAL\0C57P03\0MClosed for maintenance\0\0' | write /etc/greeter/5432.notice
block "$section" 2 | sed "s/22/5432/" | write /etc/greeter/greeter.toml.d/5432.toml
run sh -euc "$(block "$section" 3 | sed "s/22/5432/")" >"$container/open" 2>&1 || fail "$(cat "$container/open")"
program 2 psql -h 192.0.2.1 -U me
shown "server sent an error response during SSL exchange"
expect_no_output maintenance
program 2 psql "host=192.0.2.1 user=me sslmode=disable"
expect_output "failed: FATAL:  Closed for maintenance"

check "a silent client receives each notice unchanged"
for port in 22 24 389 3306 4190 5222 6379 6667; do
	greeting "192.0.2.1:$port" | cmp - "$container/root/etc/greeter/$port.notice" || fail "port $port"
done
expect_nothing_failed
end_of_tests
