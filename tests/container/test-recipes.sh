#!/bin/bash
# The recipes of greeter(7), each with the programs that it is for: the text of
# the manual is put in place as it stands there, and the log shows what the
# other program makes of it. Where that changes, the manual has to.
tree=recipes packages="haproxy postfix swaks msmtp inetutils-telnet openssh-client lftp slrn fetchmail wget netcat-openbsd"
. "$(dirname "$0")/lib.sh"

# -- The manual ------------------------------------------------------------------

# A block of a section, the first or the N-th, as a reader would copy it.
block() {
	local found
	found=$(awk -v section="# $1" -v wanted="${2:-1}" '
		/^# / { inside = $0 == section; next }
		/^```/ { open = !open; if (inside && open) count++; next }
		inside && open && count == wanted' "$repository/man/greeter.7.scd" | sed 's/\\\\/\\/g')
	[[ -n $found ]] || fail "greeter(7) has no block ${2:-1} in section '$1'"
	echo "$found"
}

# The line of a block that a comment names, without the comment.
line() {
	local found
	found=$(block "$1" | sed -n "s/ *# $2, port .*//p")
	[[ -n $found ]] || fail "greeter(7) has no line '$2' in section '$1'"
	echo "$found"
}

# The manual says this, however it is filled and set off.
manual_says() {
	local text
	text=$(sed 's/\\\\/\\/g; s/\*//g' "$repository/man/greeter.7.scd" | tr -s ' \t\n' ' ')
	[[ $text == *"$1"* ]] || fail "greeter(7) does not say: $1"
}

# -- Putting a recipe in place -----------------------------------------------------

# The drop-in of greeter.socket, from standard input, as 'systemctl edit' saves it.
socket() {
	run systemctl edit --stdin greeter.socket >"$machine/edit" 2>&1 || fail "$(cat "$machine/edit")"
}

# A drop-in of the socket with a port for everybody: the manual's for port 25.
port() {
	block "SMTP: TRY AGAIN LATER" | sed "s/:25$/:$1/" | socket
}

# The settings, from standard input; then what the manual says to do after that.
settings() {
	local commands
	write /etc/greeter/greeter.toml.d/recipe.toml
	sed 's/^/        /' "$machine/root/etc/greeter/greeter.toml.d/recipe.toml"
	commands=$(block DESCRIPTION)
	# To enable it once is enough.
	! run test -e /etc/systemd/system/sockets.target.wants/greeter.socket ||
		commands=$(sed '/^systemctl enable /d' <<<"$commands")
	run sh -euc "$commands" >"$machine/settings" 2>&1 || fail "$(cat "$machine/settings")"
}

# -- What the other programs say ---------------------------------------------------

# Runs a program, and shows in the log what it says. Its words are in "$output"
# then, and it must have ended so.
program() {
	local want=$1 got=0
	shift
	printf '        $ %s\n' "$*"
	output=$(run timeout --foreground 60 "$@" </dev/null 2>&1) || got=$?
	output=${output//$'\r'/}
	printf '%s\n' "$output" | sed 's/^/        | /'
	[[ $got == "$want" ]] || fail "this ended with $got, not $want: $*"
}

# Each of these is in what the last program said.
said() {
	local words
	for words; do
		[[ $output == *"$words"* ]] || fail "the program did not say: $words"
	done
}
not_said() { [[ $output != *"$1"* ]] || fail "the program said: $1"; }

# -----------------------------------------------------------------------------

fresh
rm "$machine"/root/etc/systemd/system/multi-user.target.wants/{haproxy,postfix}.service
echo mail.example.org >"$machine/root/etc/hostname"
write /etc/hosts <<<$'127.0.0.1 localhost\n192.0.2.1 mail.example.org'
boot
install_greeter
# The server, and clients near and far.
for address in 192.0.2.1/24 198.51.100.7/24; do run ip address add "$address" dev lo; done
for address in 2001:db8::1/64 2001:db8::7/64; do run ip address add "$address" dev lo nodad; done

check "open to the network: IPv4 and IPv6, at every address of the host"
block "OPEN IT TO THE NETWORK" | socket
settings </dev/null
expect $'This is a test\n' greeting 192.0.2.1:4000
expect $'This is a test\n' greeting '[2001:db8::1]:4000'

check "only some may connect: the addresses in the socket decide"
manual_says 'IPAddressDeny=any and IPAddressAllow=192.0.2.0/24 here, in the socket'
{ block "OPEN IT TO THE NETWORK" && printf '%s\n' IPAddressDeny=any IPAddressAllow=192.0.2.0/24; } | socket
settings </dev/null
program 0 nc -v -w 5 -s 192.0.2.7 192.0.2.1 4000
said "This is a test"
program 1 nc -v -w 2 -s 198.51.100.7 192.0.2.1 4000
said "timed out"
not_said "This is a test"

check "from which address do you see me: IPv4, IPv6, one socket for both, Unix"
port 4000
block "FROM WHICH ADDRESS DO YOU SEE ME?" | settings
program 0 nc -4 -s 192.0.2.7 -p 5555 192.0.2.1 4000
[[ $output == "You are 192.0.2.7 port 5555, and reached 192.0.2.1" ]] || fail "$output"
program 0 nc -6 -s 2001:db8::7 -p 5556 2001:db8::1 4000
[[ $output == "You are 2001:db8::7 port 5556, and reached 2001:db8::1" ]] || fail "$output"
printf '%s\n' '[Socket]' ListenStream= ListenStream=4000 ListenStream=/run/greeter.sock RemoveOnStop=yes | socket
block "FROM WHICH ADDRESS DO YOU SEE ME?" | settings
program 0 nc -4 -s 192.0.2.7 -p 5557 192.0.2.1 4000
[[ $output == "You are 192.0.2.7 port 5557, and reached 192.0.2.1" ]] || fail "$output"
program 0 nc -6 -s 2001:db8::7 -p 5558 2001:db8::1 4000
[[ $output == "You are 2001:db8::7 port 5558, and reached 2001:db8::1" ]] || fail "$output"
program 0 nc -U /run/greeter.sock
[[ $output == "You are - port -, and reached /run/greeter.sock" ]] || fail "$output"

check "SMTP: swaks, msmtp and curl report the 421"
block "SMTP: TRY AGAIN LATER" 1 | socket
block "SMTP: TRY AGAIN LATER" 2 | settings
text="421 4.3.2 mail.example.org Closed for maintenance, please try again later"
expect "$text"$'\r\n' greeting 192.0.2.1:25
# shellcheck disable=SC2046 # one word an argument
program 21 $(block "SMTP: TRY AGAIN LATER" 3)
said "<** $text"
# With a mail to send it is no different.
program 21 swaks --server 2001:db8::1 --from me@example.net --to you@example.org
said "<** $text"
manual_says "swaks ends with status 21, msmtp with 76 and the text, curl with 8 and only the number"
program 76 sh -c 'echo hello | msmtp --host=192.0.2.1 --from=me@example.net you@example.org'
said "$text"
program 8 curl -sS --mail-from me@example.net --mail-rcpt you@example.org --upload-file /etc/hostname smtp://192.0.2.1/
said "unexpected smtp-server response: 421"
not_said maintenance

check "SMTP: port 25 as one more port, from the examples"
run rm -r /etc/greeter/greeter.toml.d /etc/systemd/system/greeter.socket.d
run systemctl daemon-reload
run systemctl restart greeter.socket
expect $'This is a test\n' greeting 127.0.0.1:4000
run cp /usr/share/doc/greeter/examples/greeter-smtp.socket /etc/systemd/system/
run mkdir /etc/greeter/greeter.toml.d
run cp /usr/share/doc/greeter/examples/smtp.toml /etc/greeter/greeter.toml.d/
# A running service cannot be handed another socket.
run systemctl daemon-reload
program 1 systemctl start greeter-smtp.socket
run journalctl --sync
program 0 journalctl --quiet --no-pager --output=cat --unit=greeter-smtp.socket
said "already active, refusing"
run sh -euc "$(block "ANOTHER TEXT FOR ANOTHER PORT" 3 | sed s/greeter-notice/greeter-smtp/)" >"$machine/enable" 2>&1 ||
	fail "$(cat "$machine/enable")"
expect "$text"$'\r\n' greeting 192.0.2.1:25
expect $'This is a test\n' greeting 127.0.0.1:4000

check "SMTP: Postfix takes it for a temporary failure, and keeps the mail queued"
write /etc/postfix/main.cf <<'END'
compatibility_level = 3.6
myhostname = sender.example.net
mydestination =
inet_interfaces = loopback-only
relayhost = [192.0.2.1]
maillog_file = /var/log/postfix.log
END
# It sends only: port 25 is ours.
run sed -i 's/^smtp  *inet/#&/' /etc/postfix/master.cf
run systemctl start postfix.service
run sh -c 'printf "Subject: hello\n\nStill there?\n" | sendmail -f me@example.net you@example.org'
expect_within 30 run grep -q status= /var/log/postfix.log
program 0 grep status= /var/log/postfix.log
said "status=deferred (host 192.0.2.1[192.0.2.1] refused to talk to me: $text)" "dsn=4.3.2"
program 0 postqueue -p
said "me@example.net" "$text" "in 1 Request."
manual_says "for five days"
expect "maximal_queue_lifetime = 5d" run postconf maximal_queue_lifetime

check "an extra socket that is switched off closes its port, and leaves the others"
run systemctl disable --quiet --now greeter-smtp.socket
closed 192.0.2.1:25 || fail "port 25 is still open"
expect $'This is a test\n' greeting 127.0.0.1:4000

check "SMTP: Postfix delivers as soon as the port has a mail server again"
run mkdir /root/delivered
run systemd-run --quiet --unit=mail-server --working-directory=/root/delivered \
	smtp-sink -u root -d %M. 192.0.2.1:25 10
expect_within 10 run sh -c 'nc -z 192.0.2.1 25'
program 0 postqueue -f
expect_within 30 run grep -q status=sent /var/log/postfix.log
program 0 grep status=sent /var/log/postfix.log
said "to=<you@example.org>"
program 0 postqueue -p
said "Mail queue is empty"
expect_match "^Still there\?$" run sh -c 'cat /root/delivered/*'
run systemctl stop postfix.service mail-server.service

check "IMAP: curl and fetchmail report * BYE"
port 143
{ line "IMAP, POP3, FTP, NNTP" IMAP && echo 'line_ending = "crlf"'; } | settings
program 8 curl -sS imap://192.0.2.1/
said "Got unexpected imap-server response"
not_said maintenance
program 8 curl -sS -v imap://192.0.2.1/
said "< * BYE Closed for maintenance"
fetch() {
	write /root/.fetchmailrc <<<"poll 192.0.2.1 protocol $1 user me password secret"
	chmod 600 "$machine/root/root/.fetchmailrc"
}
fetch imap
program 2 fetchmail
said "Received BYE response from IMAP server:  CLOSED FOR MAINTENANCE"
program 35 curl -sS --insecure imaps://192.0.2.1:143/
not_said maintenance

check "POP3: curl and fetchmail report -ERR; fetchmail takes it for a busy server"
port 110
{ line "IMAP, POP3, FTP, NNTP" POP3 && echo 'line_ending = "crlf"'; } | settings
program 8 curl -sS -v pop3://192.0.2.1/
said "< -ERR [SYS/TEMP] Service unavailable for maintenance" "Got unexpected pop3-server response"
fetch pop3
program 14 fetchmail -v
said "fetchmail: [SYS/TEMP] Service unavailable for maintenance"
program 14 fetchmail
not_said maintenance
# Without the words that it knows:
printf '%s\n' 'message = "-ERR [SYS/TEMP] Closed for maintenance"' 'line_ending = "crlf"' | settings
program 3 fetchmail -v
said "AUTHFAIL"

check "FTP: lftp shows the 421; curl and wget do not say why"
port 21
{ line "IMAP, POP3, FTP, NNTP" FTP && echo 'line_ending = "crlf"'; } | settings
program 1 lftp -d -c 'set net:max-retries 2; set net:reconnect-interval-base 1; open 192.0.2.1; ls'
said "<--- 421 Closed for maintenance" "max-retries exceeded (421 Closed for maintenance)"
expect 2 grep -c "^---- Connecting" <<<"$output"
program 28 curl -sS ftp://192.0.2.1/
said "Timeout was reached"
not_said maintenance
program 28 curl -sS -v ftp://192.0.2.1/
said "< 421 Closed for maintenance"
program 4 wget --tries=1 -O - ftp://192.0.2.1/
said "Error in server response"
not_said maintenance

check "NNTP: slrn shows the 400"
port 119
{ line "IMAP, POP3, FTP, NNTP" NNTP && echo 'line_ending = "crlf"'; } | settings
program 1 env TERM=xterm NNTPSERVER=192.0.2.1 script --quiet --return --command 'slrn -n --create -f /root/newsrc' /dev/null
said "Reason: 400 Closed for maintenance"

check "HTTP: curl, wget and HAProxy get a 503 with Retry-After"
run sh -euc "$(block "HTTP: 503 AND WHEN TO COME AGAIN" 1)"
port 80
block "HTTP: 503 AND WHEN TO COME AGAIN" 2 | settings
program 0 curl -sS --include http://192.0.2.1/
said "HTTP/1.1 503 Service Unavailable" "Retry-After: 3600" "Back in an hour."
program 0 curl -sS --head http://192.0.2.1/
said "HTTP/1.1 503 Service Unavailable" "Retry-After: 3600"
program 22 curl -sS --fail http://192.0.2.1/
said "The requested URL returned error: 503"
program 8 wget --tries=1 -O - http://192.0.2.1/
said "503 Service Unavailable"
program 35 curl -sS --insecure https://192.0.2.1:80/
write /etc/haproxy/haproxy.cfg <<'END'
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen web
    bind 192.0.2.1:8080
    server down 192.0.2.1:80
END
run systemctl start haproxy.service
program 0 curl -sS --include http://192.0.2.1:8080/
said "HTTP/1.1 503 Service Unavailable" "retry-after: 3600" "Back in an hour."
run systemctl stop haproxy.service

check "HTTP: curl --retry comes again when Retry-After says"
run sed -i 's/3600/1/' /etc/greeter/503.http
run systemctl reload greeter.service
program 0 curl --no-progress-meter --retry 1 http://192.0.2.1/
said "Will retry in 1 second"

check "HTTP: large uploads; who sends all before reading needs a larger linger_bytes"
run truncate --size=50M /root/upload
program 0 curl -sS -v --upload-file /root/upload http://192.0.2.1/
said "> Expect: 100-continue" "< HTTP/1.1 503 Service Unavailable" "Back in an hour."
program 4 wget --tries=1 -O - --post-file=/root/upload http://192.0.2.1/
said "Giving up."
{ block "HTTP: 503 AND WHEN TO COME AGAIN" 2 && block "HTTP: 503 AND WHEN TO COME AGAIN" 3; } | settings
program 8 wget --tries=1 -O - --post-file=/root/upload http://192.0.2.1/
said "ERROR 503: Service Unavailable."

check "telnet: a client that negotiates first reads the notice, with its CRLF"
port 23
block "TELNET: A NOTICE" | settings
expect $'This host has moved to new.example.org.\r\nAsk the help desk for an account there.\r\n' greeting 192.0.2.1:23
write /root/.telnetrc <<<'DEFAULT toggle options'
# At a keyboard at which nobody types.
program 0 sh -c 'mkfifo keys; sleep 60 >keys & telnet 192.0.2.1 <keys; status=$?; kill $!; exit $status'
said $'This host has moved to new.example.org.\nAsk the help desk for an account there.\nConnection closed by foreign host.'
[[ ${output%%This host*} == *"SENT WILL TERMINAL TYPE"* ]] || fail "telnet did not negotiate first"
manual_says "sends ten options"
expect 10 grep -c "^SENT " <<<"$output"
program 0 curl -sS telnet://192.0.2.1
said $'This host has moved to new.example.org.\nAsk the help desk for an account there.'

check "telnet: the notice as one more port, as the manual has it"
block "ANOTHER TEXT FOR ANOTHER PORT" 1 | write /etc/systemd/system/greeter-notice.socket
block "ANOTHER TEXT FOR ANOTHER PORT" 2 | write /etc/greeter/greeter.toml.d/notice.toml
run sh -euc "$(block "ANOTHER TEXT FOR ANOTHER PORT" 3)" >"$machine/enable" 2>&1 || fail "$(cat "$machine/enable")"
program 0 curl -sS telnet://192.0.2.1:4023
said "Maintenance from 22:00 to 23:00 UTC"
expect $'This host has moved to new.example.org.\r\nAsk the help desk for an account there.\r\n' greeting 192.0.2.1:23
run systemctl restart greeter-notice.socket
expect $'Maintenance from 22:00 to 23:00 UTC\r\n' greeting 192.0.2.1:4023
run systemctl disable --quiet --now greeter-notice.socket
closed 192.0.2.1:4023 || fail "port 4023 is still open"

check "SSH: OpenSSH's client shows the notice in its debug lines, and nowhere else"
port 22
block "SSH: A NOTICE IN THE CLIENT'S DEBUG LINES" | settings
program 255 ssh -T -F none 192.0.2.1
said "Connection closed by 192.0.2.1 port 22"
not_said maintenance
program 255 ssh -T -F none -o IdentityFile=none -v 192.0.2.1
said "debug1: kex_exchange_identification: banner line 0: Closed for maintenance until 18:00 UTC"
run rm /etc/greeter/greeter.toml.d/recipe.toml

# -- HAProxy ---------------------------------------------------------------------

# What HAProxy's stats socket says of a server: status, weight, what its agent
# said last; a line, with a semicolon between them.
server() {
	run sh -c 'echo "show stat" | socat -t 5 - UNIX-CONNECT:/run/haproxy.sock' | awk -F, -v server="$1" '
		NR == 1 { sub(/^# /, ""); for (i = 1; i <= NF; i++) column[$i] = i }
		$1 == "web" && $2 == server { print $column["status"] ";" $column["weight"] ";" $column["last_agt"] }'
}
# Waits until what it says of a server matches.
expect_server() {
	# shellcheck disable=SC2053 # a pattern
	is() { [[ $(server "$1") == $2 ]]; }
	expect_within 20 is "$@"
	printf '        | %s: %s\n' "$1" "$(server "$1")"
}
state() {
	printf '        message = "%s"\n' "$1"
	write /etc/greeter/greeter.toml.d/state.toml <<<"message = \"$1\""
	run systemctl reload greeter
}
web() { expect "$1" run curl -sS -o /dev/null --write-out '%{http_code}' http://192.0.2.1/; }

check "HAProxy: drain and back by 'systemctl reload greeter', read from its stats socket"
run rm -r /etc/systemd/system/greeter.socket.d
run systemctl daemon-reload
block "HAPROXY: READY, DRAIN, MAINT, 75%" 1 | settings
rm "$machine/root/etc/greeter/greeter.toml.d/recipe.toml"
# The server's line is the manual's; its address is that of a server that we have.
line=$(block "HAPROXY: READY, DRAIN, MAINT, 75%" 2 | sed 's/192.0.2.10:80/127.0.0.1:8081/; s/agent-inter 2s/agent-inter 100ms/')
write /etc/haproxy/haproxy.cfg <<END
global
    stats socket /run/haproxy.sock
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen web
    bind 192.0.2.1:80
    $line
    ${line/web1 127.0.0.1:8081 weight 100/light 127.0.0.1:8081}
listen one
    bind 127.0.0.1:8081
    http-request return status 200
END
write /etc/greeter/greeter.toml.d/state.toml <<<'message = "ready"'
run systemctl start haproxy.service
expect_server web1 'UP;100;*'
web 200
run sh -euc "$(block "HAPROXY: READY, DRAIN, MAINT, 75%" 3)"
expect_server web1 'DRAIN (agent);*'
expect_server light 'DRAIN (agent);*'
web 503
run sh -euc "$(block "HAPROXY: READY, DRAIN, MAINT, 75%" 4)"
expect_server web1 'UP;*'
expect_server light 'UP;*'
web 200
run journalctl --sync
program 0 journalctl --quiet --no-pager --output=cat --unit=haproxy.service --grep=drain
said "Server web/web1 enters drain state" "Server web/web1 is UP (leaving forced drain)"

check "HAProxy: each of its words; what undoes which; a share of weight 1 is none"
state 75%
expect_server web1 'UP;75;'
expect_server light 'UP;0;'
state ready
# Nothing shows that it has been read, so its next checks are awaited.
sleep 1
expect_server web1 'UP;75;'
state maint
expect_server web1 'MAINT;75;'
state ready
expect_server web1 'UP;75;'
for word in down stopped fail; do
	state "$word"
	expect_server web1 "DOWN (agent);75;via agent : $word"
	state ready
	expect_server web1 'DOWN (agent);75;'
	state up
	expect_server web1 'UP;75;via agent : up'
done
state "drain 50%"
expect_server web1 'DRAIN (agent);50;'
state "up ready 100%"
expect_server web1 'UP;100;via agent : up'
state "down # disk full"
expect_server web1 'DOWN (agent);100;via agent : down (disk full)'
state "up ready 100%"
expect_server web1 'UP;100;via agent : up'

check "HAProxy: a word it does not know, and an agent that is gone, leave the state as it was"
state nonsense
expect_server web1 'UP;100;agent reports an error : nonsense'
state drain
expect_server web1 'DRAIN (agent);100;'
run systemctl stop greeter.socket
expect_server web1 'DRAIN (agent);100;Connection refused'
run rm /etc/greeter/greeter.toml.d/state.toml

check "HAProxy: its agent as one more port, from the examples"
run cp /usr/share/doc/greeter/examples/greeter-agent.socket /etc/systemd/system/
run cp /usr/share/doc/greeter/examples/agent.toml /etc/greeter/greeter.toml.d/
run systemctl daemon-reload
run systemctl enable --quiet --now greeter-agent.socket
run sed -i 's/agent-port 4000/agent-port 4010/' /etc/haproxy/haproxy.cfg
run systemctl restart haproxy.service
expect_server web1 'UP;100;via agent : up'
run systemctl stop haproxy.service
run systemctl disable --quiet --now greeter-agent.socket

# -- The rest --------------------------------------------------------------------

check "a Unix socket for a group: its members are greeted, others refused"
block "A UNIX SOCKET FOR A GROUP" | socket
settings </dev/null
run useradd --groups adm member
run useradd stranger
program 0 runuser --user member -- nc -U /run/greeter.sock
said "This is a test"
program 1 runuser --user stranger -- nc -U /run/greeter.sock
said "Permission denied"
run systemctl stop greeter.socket
expect_status 1 run test -e /run/greeter.sock

check "without systemd, and with its trial tool in each mode: no unit, no privilege"
mapfile -t commands < <(block "WITHOUT SYSTEMD, AND FOR A TRIAL" 1 && block "WITHOUT SYSTEMD, AND FOR A TRIAL" 2)
expect 4 echo "${#commands[@]}"
for command in "${commands[@]}"; do
	# shellcheck disable=SC2086 # one word an argument
	run systemd-run --quiet --unit=trial --property=User=nobody $command
	trial() { [[ -n $(greeting 127.0.0.1:3000 2>/dev/null) ]]; }
	expect_within 20 trial
	printf '        $ %s\n' "$command"
	program 0 nc 127.0.0.1 3000
	case $command in
		*--inetd*) said "This socket was passed on stdin/stdout" ;;
		*" -a "*) said "This socket was already accepted" ;;
		*) said "This is a test" ;;
	esac
	run systemctl stop trial.service
done

check "stopped, but it comes back; and how to close the port"
run rm -r /etc/systemd/system/greeter.socket.d
run systemctl daemon-reload
run systemctl enable --quiet --now greeter.socket
expect $'This is a test\n' greeting 127.0.0.1:4000
run systemctl stop --no-warn greeter.service
expect $'This is a test\n' greeting 127.0.0.1:4000
run sh -euc "$(block "STOPPED, BUT IT COMES BACK")" >"$machine/disable" 2>&1 || fail "$(cat "$machine/disable")"
closed 127.0.0.1:4000 || fail "port 4000 is still open"
expect "" run ss --no-header --listening --tcp
expect_nothing_failed
end_of_tests
