#!/bin/bash
# The recipes of greeter(7) with the programs that they name: the blocks of the manual are
# installed unchanged, and the log shows the results of the other programs. If a result
# changes, the manual must be updated.
image=recipes packages="haproxy postfix swaks msmtp inetutils-telnet openssh-client lftp slrn fetchmail wget netcat-openbsd sudo"
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/haproxy.sh"
# shellcheck source=manual.sh
. "$(dirname "$0")/manual.sh"

# -- Installing a recipe ----------------------------------------------------------

# Replaces the drop-in of greeter.socket by standard input, as 'systemctl edit' does.
edit_socket() {
	run systemctl edit --stdin greeter.socket >"$container/edit" 2>&1 || fail "$(cat "$container/edit")"
}

# Sets the port of greeter.socket, on all addresses: the manual's drop-in for port 25 with
# another number.
set_port() {
	block "SMTP: TRY AGAIN LATER" | sed "s/:25$/:$1/" | edit_socket
}

# Writes the settings from standard input, and runs the commands that the manual has for
# that.
apply_settings() {
	local commands
	write /etc/greeter/greeter.toml.d/recipe.toml
	sed 's/^/        /' "$container/root/etc/greeter/greeter.toml.d/recipe.toml"
	commands=$(block DESCRIPTION)
	# It needs to be enabled only once.
	! run test -e /etc/systemd/system/sockets.target.wants/greeter.socket ||
		commands=$(sed '/^systemctl enable /d' <<<"$commands")
	run sh -euc "$commands" >"$container/settings" 2>&1 || fail "$(cat "$container/settings")"
}

# -----------------------------------------------------------------------------

create_container
rm "$container"/root/etc/systemd/system/multi-user.target.wants/{haproxy,postfix}.service
echo mail.example.org >"$container/root/etc/hostname"
write /etc/hosts <<<$'127.0.0.1 localhost\n192.0.2.1 mail.example.org'
boot
install_greeter
# The addresses of the server, and of clients inside and outside its network.
for address in 192.0.2.1/24 198.51.100.7/24; do run ip address add "$address" dev lo; done
for address in 2001:db8::1/64 2001:db8::7/64; do run ip address add "$address" dev lo nodad; done

check "open to the network: IPv4 and IPv6, on every address of the host"
block "OPEN IT TO THE NETWORK" | edit_socket
apply_settings </dev/null
expect $'This is a test\n' greeting 192.0.2.1:4000
expect $'This is a test\n' greeting '[2001:db8::1]:4000'

check "IPAddressAllow= in the socket unit restricts clients"
expect_manual 'IPAddressDeny=any and IPAddressAllow=192.0.2.0/24 here, in the socket'
{ block "OPEN IT TO THE NETWORK" && printf '%s\n' IPAddressDeny=any IPAddressAllow=192.0.2.0/24; } | edit_socket
apply_settings </dev/null
program 0 nc -v -w 5 -s 192.0.2.7 192.0.2.1 4000
expect_output "This is a test"
program 1 nc -v -w 2 -s 198.51.100.7 192.0.2.1 4000
expect_output "timed out"
expect_no_output "This is a test"

check "show the client's address: IPv4, IPv6, one socket for both, Unix"
set_port 4000
block "SHOW THE CLIENT'S ADDRESS" | apply_settings
program 0 nc -4 -s 192.0.2.7 -p 5555 192.0.2.1 4000
[[ $output == "You are 192.0.2.7 port 5555, and reached 192.0.2.1" ]] || fail "$output"
program 0 nc -6 -s 2001:db8::7 -p 5556 2001:db8::1 4000
[[ $output == "You are 2001:db8::7 port 5556, and reached 2001:db8::1" ]] || fail "$output"
printf '%s\n' '[Socket]' ListenStream= ListenStream=4000 ListenStream=/run/greeter.sock | edit_socket
block "SHOW THE CLIENT'S ADDRESS" | apply_settings
program 0 nc -4 -s 192.0.2.7 -p 5557 192.0.2.1 4000
[[ $output == "You are 192.0.2.7 port 5557, and reached 192.0.2.1" ]] || fail "$output"
program 0 nc -6 -s 2001:db8::7 -p 5558 2001:db8::1 4000
[[ $output == "You are 2001:db8::7 port 5558, and reached 2001:db8::1" ]] || fail "$output"
program 0 nc -U /run/greeter.sock
[[ $output == "You are - port -, and reached /run/greeter.sock" ]] || fail "$output"

check "SMTP: swaks, msmtp and curl report the 421"
block "SMTP: TRY AGAIN LATER" 1 | edit_socket
block "SMTP: TRY AGAIN LATER" 2 | apply_settings
text="421 4.3.2 mail.example.org Closed for maintenance, please try again later"
expect "$text"$'\r\n' greeting 192.0.2.1:25
# shellcheck disable=SC2046 # one word per argument
program 21 $(block "SMTP: TRY AGAIN LATER" 3)
expect_output "<** $text"
# The result is the same with a mail to send.
program 21 swaks --server 2001:db8::1 --from me@example.net --to you@example.org
expect_output "<** $text"
expect_manual "swaks ends with status 21, msmtp with 76 and the text, curl with 8 and only the number"
program 76 sh -c 'echo hello | msmtp --host=192.0.2.1 --from=me@example.net you@example.org'
expect_output "$text"
program 8 curl -sS --mail-from me@example.net --mail-rcpt you@example.org --upload-file /etc/hostname smtp://192.0.2.1/
expect_output "unexpected smtp-server response: 421"
expect_no_output maintenance

check "SMTP: port 25 in addition to the other ports, with the example file"
run rm -r /etc/greeter/greeter.toml.d /etc/systemd/system/greeter.socket.d
run systemctl daemon-reload
run systemctl restart greeter.socket
expect $'This is a test\n' greeting 127.0.0.1:4000
run sh -euc "$(block "SMTP: TRY AGAIN LATER" 4)" >"$container/enable" 2>&1 || fail "$(cat "$container/enable")"
expect "$text"$'\r\n' greeting 192.0.2.1:25
expect $'This is a test\n' greeting 127.0.0.1:4000

check "SMTP: Postfix detects a temporary failure, and keeps the mail queued"
write /etc/postfix/main.cf <<'END'
compatibility_level = 3.6
myhostname = sender.example.net
mydestination =
inet_interfaces = loopback-only
relayhost = [192.0.2.1]
maillog_file = /var/log/postfix.log
END
# Postfix only sends: port 25 is greeter's.
run sed -i 's/^smtp  *inet/#&/' /etc/postfix/master.cf
run systemctl start postfix.service
run sh -c 'printf "Subject: hello\n\nStill there?\n" | sendmail -f me@example.net you@example.org'
expect_within 30 run grep -q status= /var/log/postfix.log
program 0 grep status= /var/log/postfix.log
expect_output "status=deferred (host 192.0.2.1[192.0.2.1] refused to talk to me: $text)" "dsn=4.3.2"
program 0 postqueue -p
expect_output "me@example.net" "$text" "in 1 Request."
expect_manual "for five days"
expect "maximal_queue_lifetime = 5d" run postconf maximal_queue_lifetime

check "disabling an additional socket closes its port, and no other"
run systemctl disable --quiet --now greeter@25.socket
is_closed 192.0.2.1:25 || fail "port 25 is still open"
expect $'This is a test\n' greeting 127.0.0.1:4000

check "SMTP: Postfix delivers the mail when a mail server listens again"
run mkdir /root/delivered
run systemd-run --quiet --unit=mail-server --working-directory=/root/delivered \
	smtp-sink -u root -d %M. 192.0.2.1:25 10
expect_within 10 run sh -c 'nc -z 192.0.2.1 25'
program 0 postqueue -f
expect_within 30 run grep -q status=sent /var/log/postfix.log
program 0 grep status=sent /var/log/postfix.log
expect_output "to=<you@example.org>"
program 0 postqueue -p
expect_output "Mail queue is empty"
expect_match "^Still there\?$" run sh -c 'cat /root/delivered/*'
run systemctl stop postfix.service mail-server.service

check "IMAP: curl and fetchmail report * BYE"
set_port 143
{ commented_line "IMAP, POP3, FTP, NNTP" IMAP && echo 'line_ending = "crlf"'; } | apply_settings
program 8 curl -sS imap://192.0.2.1/
expect_output "Got unexpected imap-server response"
expect_no_output maintenance
program 8 curl -sS -v imap://192.0.2.1/
expect_output "< * BYE Closed for maintenance"
fetch() {
	write /root/.fetchmailrc <<<"poll 192.0.2.1 protocol $1 user me password secret"
	chmod 600 "$container/root/root/.fetchmailrc"
}
fetch imap
program 2 fetchmail
expect_output "Received BYE response from IMAP server:  CLOSED FOR MAINTENANCE"
program 35 curl -sS --insecure imaps://192.0.2.1:143/
expect_no_output maintenance

check "POP3: curl and fetchmail report -ERR; fetchmail reports a busy server"
set_port 110
{ commented_line "IMAP, POP3, FTP, NNTP" POP3 && echo 'line_ending = "crlf"'; } | apply_settings
program 8 curl -sS -v pop3://192.0.2.1/
expect_output "< -ERR [SYS/TEMP] Service unavailable for maintenance" "Got unexpected pop3-server response"
fetch pop3
program 14 fetchmail -v
expect_output "fetchmail: [SYS/TEMP] Service unavailable for maintenance"
program 14 fetchmail
expect_no_output maintenance
# Without the text that it recognizes:
printf '%s\n' 'message = "-ERR [SYS/TEMP] Closed for maintenance"' 'line_ending = "crlf"' | apply_settings
program 3 fetchmail -v
expect_output "AUTHFAIL"

check "FTP: lftp shows the 421; curl and wget do not show the reason"
set_port 21
{ commented_line "IMAP, POP3, FTP, NNTP" FTP && echo 'line_ending = "crlf"'; } | apply_settings
program 1 lftp -d -c 'set net:max-retries 2; set net:reconnect-interval-base 1; open 192.0.2.1; ls'
expect_output "<--- 421 Closed for maintenance" "max-retries exceeded (421 Closed for maintenance)"
expect 2 grep -c "^---- Connecting" <<<"$output"
program 28 curl -sS ftp://192.0.2.1/
expect_output "Timeout was reached"
expect_no_output maintenance
program 28 curl -sS -v ftp://192.0.2.1/
expect_output "< 421 Closed for maintenance"
program 4 wget --tries=1 -O - ftp://192.0.2.1/
expect_output "Error in server response"
expect_no_output maintenance

check "NNTP: slrn shows the 400"
set_port 119
{ commented_line "IMAP, POP3, FTP, NNTP" NNTP && echo 'line_ending = "crlf"'; } | apply_settings
program 1 env TERM=xterm NNTPSERVER=192.0.2.1 script --quiet --return --command 'slrn -n --create -f /root/newsrc' /dev/null
expect_output "Reason: 400 Closed for maintenance"

check "HTTP: curl, wget and HAProxy receive a 503 with Retry-After"
run sh -euc "$(block "HTTP: 503 WITH RETRY-AFTER" 1)"
set_port 80
block "HTTP: 503 WITH RETRY-AFTER" 2 | apply_settings
program 0 curl -sS --include http://192.0.2.1/
expect_output "HTTP/1.1 503 Service Unavailable" "Retry-After: 3600" "Back in an hour."
program 0 curl -sS --head http://192.0.2.1/
expect_output "HTTP/1.1 503 Service Unavailable" "Retry-After: 3600"
program 22 curl -sS --fail http://192.0.2.1/
expect_output "The requested URL returned error: 503"
program 8 wget --tries=1 -O - http://192.0.2.1/
expect_output "503 Service Unavailable"
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
expect_output "HTTP/1.1 503 Service Unavailable" "retry-after: 3600" "Back in an hour."
run systemctl stop haproxy.service

check "HTTP: curl --retry waits for the time in Retry-After"
run sed -i 's/3600/1/' /etc/greeter/503.http
run systemctl reload greeter.service
program 0 curl --no-progress-meter --retry 1 http://192.0.2.1/
expect_output "Will retry in 1 second"

check "HTTP: large uploads; a client that sends all before reading needs a larger linger_bytes"
run truncate --size=50M /root/upload
program 0 curl -sS -v --upload-file /root/upload http://192.0.2.1/
expect_output "> Expect: 100-continue" "< HTTP/1.1 503 Service Unavailable" "Back in an hour."
program 4 wget --tries=1 -O - --post-file=/root/upload http://192.0.2.1/
expect_output "Giving up."
{ block "HTTP: 503 WITH RETRY-AFTER" 2 && block "HTTP: 503 WITH RETRY-AFTER" 3; } | apply_settings
program 8 wget --tries=1 -O - --post-file=/root/upload http://192.0.2.1/
expect_output "ERROR 503: Service Unavailable."

check "telnet: a client that negotiates first receives the notice, with its CRLF"
set_port 23
block "TELNET: A NOTICE" | apply_settings
expect $'This host has moved to new.example.org.\r\nAsk the help desk for an account there.\r\n' greeting 192.0.2.1:23
write /root/.telnetrc <<<'DEFAULT toggle options'
# With a standard input that stays open and has no data.
program 0 sh -c 'mkfifo keys; sleep 60 >keys & telnet 192.0.2.1 <keys; status=$?; kill $!; exit $status'
expect_output $'This host has moved to new.example.org.\nAsk the help desk for an account there.\nConnection closed by foreign host.'
[[ ${output%%This host*} == *"SENT WILL TERMINAL TYPE"* ]] || fail "telnet did not negotiate first"
expect_manual "sends ten options"
expect 10 grep -c "^SENT " <<<"$output"
program 0 curl -sS telnet://192.0.2.1
expect_output $'This host has moved to new.example.org.\nAsk the help desk for an account there.'

check "telnet: an additional port with a separate text, as in the manual"
block "SEVERAL PORTS WITH DIFFERENT TEXTS" 1 | write /etc/systemd/system/greeter-notice.socket
block "SEVERAL PORTS WITH DIFFERENT TEXTS" 2 | write /etc/greeter/greeter.toml.d/notice.toml
# systemd cannot pass a further socket to a running service.
run systemctl daemon-reload
program 1 systemctl start greeter-notice.socket
run journalctl --sync
program 0 journalctl --quiet --no-pager --output=cat --unit=greeter-notice.socket
expect_output "already active, refusing"
run sh -euc "$(block "SEVERAL PORTS WITH DIFFERENT TEXTS" 3)" >"$container/enable" 2>&1 || fail "$(cat "$container/enable")"
program 0 curl -sS telnet://192.0.2.1:4023
expect_output "Maintenance from 22:00 to 23:00 UTC"
expect $'This host has moved to new.example.org.\r\nAsk the help desk for an account there.\r\n' greeting 192.0.2.1:23
run systemctl restart greeter-notice.socket
expect $'Maintenance from 22:00 to 23:00 UTC\r\n' greeting 192.0.2.1:4023
run systemctl disable --quiet --now greeter-notice.socket
is_closed 192.0.2.1:4023 || fail "port 4023 is still open"

check "a port by one command, with a text and then an address of its own"
commands=$(block "A PORT BY ONE COMMAND" 1)
block "A PORT BY ONE COMMAND" 2 | write /etc/greeter/greeter.toml.d/2525.toml
run sh -euc "$(sed -n 1p <<<"$commands")" >"$container/enable" 2>&1 || fail "$(cat "$container/enable")"
text=$'421 4.3.2 mail.example.org Closed for maintenance, please try again later\r\n'
for address in 127.0.0.1 192.0.2.1 '[::1]'; do expect "$text" greeting "$address:2525"; done
block "A PORT BY ONE COMMAND" 4 | run systemctl edit --stdin greeter@2525.socket >"$container/edit" 2>&1 || fail "$(cat "$container/edit")"
expect_manual "Then run systemctl restart greeter@2525.socket."
run systemctl restart greeter@2525.socket
expect "$text" greeting 192.0.2.1:2525
is_closed 127.0.0.1:2525 || fail "port 2525 is still open on 127.0.0.1"
pid=$(property MainPID greeter@2525.service)
run sed -i 's/421 4.3.2/421 4.3.0/' /etc/greeter/greeter.toml.d/2525.toml
run sh -euc "$(block "A PORT BY ONE COMMAND" 3)"
expect "${text/4.3.2/4.3.0}" greeting 192.0.2.1:2525
expect "$pid" property MainPID greeter@2525.service
run sh -euc "$(sed -n 2p <<<"$commands")" >"$container/enable" 2>&1 || fail "$(cat "$container/enable")"
is_closed 192.0.2.1:2525 || fail "port 2525 is still open"
run rm /etc/greeter/greeter.toml.d/2525.toml /etc/greeter/greeter.toml.d/recipe.toml

# -- HAProxy ---------------------------------------------------------------------

# Sends another line to HAProxy.
set_state() {
	printf '        message = "%s"\n' "$1"
	write /etc/greeter/greeter.toml.d/state.toml <<<"message = \"$1\""
	run systemctl reload greeter
}
# The status code that HAProxy's clients receive.
expect_web() {
	expect "$1" run curl -sS -o /dev/null --write-out '%{http_code}' http://192.0.2.1/
}

check "HAProxy: drain and ready, with the commands of the manual"
run rm -r /etc/systemd/system/greeter.socket.d
run systemctl daemon-reload
block "HAPROXY: READY, DRAIN, MAINT, 75%" 1 | apply_settings
rm "$container/root/etc/greeter/greeter.toml.d/recipe.toml"
# The server line of the manual, with the address of the server in this container.
line=$(block "HAPROXY: READY, DRAIN, MAINT, 75%" 2 | sed 's/192.0.2.10:80/127.0.0.1:8081/; s/agent-inter 2s/agent-inter 100ms/')
write /etc/haproxy/haproxy.cfg <<END
$haproxy_defaults
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
expect_web 200
run sh -euc "$(block "HAPROXY: READY, DRAIN, MAINT, 75%" 3)"
expect_server web1 'DRAIN (agent);*'
expect_server light 'DRAIN (agent);*'
expect_web 503
run sh -euc "$(block "HAPROXY: READY, DRAIN, MAINT, 75%" 4)"
expect_server web1 'UP;*'
expect_server light 'UP;*'
expect_web 200
run journalctl --sync
program 0 journalctl --quiet --no-pager --output=cat --unit=haproxy.service --grep=drain
expect_output "Server web/web1 enters drain state" "Server web/web1 is UP (leaving forced drain)"

check "HAProxy: each keyword changes its own state; a percentage of weight 1 is 0"
set_state 75%
expect_server web1 'UP;75;'
expect_server light 'UP;0;'
set_state ready
# No visible state changes, so wait for the next checks.
sleep 1
expect_server web1 'UP;75;'
set_state maint
expect_server web1 'MAINT;75;'
set_state ready
expect_server web1 'UP;75;'
for keyword in down stopped fail; do
	set_state "$keyword"
	expect_server web1 "DOWN (agent);75;via agent : $keyword"
	set_state ready
	expect_server web1 'DOWN (agent);75;'
	set_state up
	expect_server web1 'UP;75;via agent : up'
done
set_state "drain 50%"
expect_server web1 'DRAIN (agent);50;'
set_state "up ready 100%"
expect_server web1 'UP;100;via agent : up'
set_state "down # disk full"
expect_server web1 'DOWN (agent);100;via agent : down (disk full)'
set_state "up ready 100%"
expect_server web1 'UP;100;via agent : up'

check "HAProxy: an unknown keyword and a closed agent port do not change the state"
set_state nonsense
expect_server web1 'UP;100;agent reports an error : nonsense'
set_state drain
expect_server web1 'DRAIN (agent);100;'
run systemctl stop greeter.socket
expect_server web1 'DRAIN (agent);100;Connection refused'
run rm /etc/greeter/greeter.toml.d/state.toml

check "HAProxy: the agent port in addition to the other ports, with the example files"
run cp /usr/share/doc/greeter/examples/greeter-agent.socket /etc/systemd/system/
run cp /usr/share/doc/greeter/examples/agent.toml /etc/greeter/greeter.toml.d/
run systemctl daemon-reload
run systemctl enable --quiet --now greeter-agent.socket
run sed -i 's/agent-port 4000/agent-port 4010/' /etc/haproxy/haproxy.cfg
run systemctl restart haproxy.service
expect_server web1 'UP;100;via agent : up'
run systemctl stop haproxy.service
run systemctl disable --quiet --now greeter-agent.socket

# -- Other recipes ----------------------------------------------------------------

check "a Unix socket for a group: members are greeted, other users are refused"
block "A UNIX SOCKET FOR A GROUP" | edit_socket
apply_settings </dev/null
run useradd --groups adm member
run useradd nonmember
program 0 runuser --user member -- nc -U /run/greeter.sock
expect_output "This is a test"
program 1 runuser --user nonmember -- nc -U /run/greeter.sock
expect_output "Permission denied"
run systemctl stop greeter.socket
expect_status 1 run test -e /run/greeter.sock

check "without systemd, and with systemd-socket-activate in each mode: no unit, no privileges"
mapfile -t commands < <(block "WITHOUT SYSTEMD, AND FOR TESTING" 1 && block "WITHOUT SYSTEMD, AND FOR TESTING" 2)
expect 4 echo "${#commands[@]}"
for command in "${commands[@]}"; do
	# shellcheck disable=SC2086 # one word per argument
	run systemd-run --quiet --unit=greeter-test --property=User=nobody $command
	responds() { [[ -n $(greeting 127.0.0.1:3000 2>/dev/null) ]]; }
	expect_within 20 responds
	printf '        $ %s\n' "$command"
	program 0 nc 127.0.0.1 3000
	case $command in
		*--inetd*) expect_output "This socket was passed on stdin/stdout" ;;
		*" -a "*) expect_output "This socket was already accepted" ;;
		*) expect_output "This is a test" ;;
	esac
	run systemctl stop greeter-test.service
done

check "service restarts after stop; disabling the socket closes the port"
run rm -r /etc/systemd/system/greeter.socket.d
run systemctl daemon-reload
run systemctl enable --quiet --now greeter.socket
expect $'This is a test\n' greeting 127.0.0.1:4000
run systemctl stop --no-warn greeter.service
expect $'This is a test\n' greeting 127.0.0.1:4000
run sh -euc "$(block "THE SERVICE STARTS AGAIN AFTER A STOP")" >"$container/disable" 2>&1 || fail "$(cat "$container/disable")"
is_closed 127.0.0.1:4000 || fail "port 4000 is still open"
expect "" run ss --no-header --listening --tcp
expect_nothing_failed
end_of_tests
