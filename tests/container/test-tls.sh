#!/bin/bash
# Ports with TLS: greeter-tls@PORT.socket with HAProxy in front of greeter, as greeter(7) has
# it, and maintenance of Dovecot and nginx on two ports each.
#   tests/container/test-tls.sh [soak] [bookworm|trixie|testing]
# With "soak", twenty switches in each direction for each service, and the CPU time and the
# lost clients compared with nginx.
. "$(dirname "$0")/arguments.sh" trixie "$@"
image=tls-$SUITE packages="haproxy dovecot-imapd dovecot-pop3d nginx libnginx-mod-stream openssl python3 perl wget"
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/load.sh" "$full"
. "$(dirname "$0")/manual.sh"

examples=/usr/share/doc/greeter/examples
live=/etc/letsencrypt/live/mail.example.org
bye='* BYE Closed for maintenance\r\n'

# new_certificate NAME [DIRECTORY]: a key and a certificate that it signs, as certbot has them.
new_certificate() {
	local to=${2-$live}
	run sh -euc '
		mkdir -p "$2"
		umask 077
		openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
			-subj "/CN=$1" -addext "subjectAltName=DNS:$1" \
			-keyout "$2/privkey.pem.new" -out "$2/fullchain.pem.new" 2>/dev/null
		mv "$2/privkey.pem.new" "$2/privkey.pem"
		mv "$2/fullchain.pem.new" "$2/fullchain.pem"' sh "$1" "$to"
}

# load NAME ARGUMENT...: clients in the background, whose results are in "$container/NAME".
declare -A pids=()
load() {
	local name=$1
	shift
	run tls_load "$@" >"$container/$name" 2>&1 &
	pids[$name]=$!
}
# Waits for clients, all of which were greeted.
wait_for() {
	wait "${pids[$1]}" || fail "the clients '$1': $(cat "$container/$1")"
	note "$1: $(sed -n 's/^greeted //p' "$container/$1") greeted, 0 lost"
}
clients_are_running() { kill -0 "${pids[$1]}" 2>/dev/null; }

# first_line PORT: prints the first line that a client receives, with TLS on ports for that.
first_line() {
	run timeout 20 python3 -c '
import socket, ssl, sys
port = int(sys.argv[1])
connection = socket.create_connection(("127.0.0.1", port), 10)
if port in (443, 465, 993, 995):
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = context.wrap_socket(connection, server_hostname="mail.example.org")
if port in (80, 443):
    connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
print(connection.makefile("rb").readline().decode().rstrip())' "$1" 2>/dev/null
}
is_line() { [[ $(first_line "$1") == "$2"* ]]; }

declare -A plain=([dovecot]=143 [nginx]=80) tls=([dovecot]=993 [nginx]=443)
declare -A own_line=([dovecot]="* OK" [nginx]="HTTP/1.1 200")
declare -A greeter_line=([dovecot]="* BYE" [nginx]="HTTP/1.1 503")
is_served() { is_line "${plain[$1]}" "${own_line[$1]}" && is_line "${tls[$1]}" "${own_line[$1]}"; }
is_in_maintenance() {
	is_line "${plain[$1]}" "${greeter_line[$1]}" && is_line "${tls[$1]}" "${greeter_line[$1]}"
}
sockets_of() { echo "greeter@${plain[$1]}.socket greeter-tls@${tls[$1]}.socket"; }

create_container
for service in haproxy dovecot nginx; do
	rm -f "$container/root/etc/systemd/system/multi-user.target.wants/$service.service"
done
echo mail.example.org >"$container/root/etc/hostname"
write /etc/hosts <<<$'127.0.0.1 localhost\n192.0.2.1 mail.example.org\n2001:db8::1 mail.example.org'
copy_in "$repository"/tests/container/{closed_time,tls_load} /usr/local/bin
boot
note "$(run systemctl --version | sed -n 1p), $(run sh -c '. /etc/os-release; echo "$PRETTY_NAME"')"
note "$(run haproxy -v | sed -n 1p)"
install_greeter
run ip address add 192.0.2.1/24 dev lo
run ip address add 2001:db8::1/64 dev lo nodad
for number in {0..64}; do
	printf 'address add %s dev lo\n' "198.51.100.$((number + 1))/32"
	printf 'address add %s dev lo nodad\n' "2001:db8:1:$(printf %x "$number")::1/128"
done | run ip -batch -
sources=198.51.100.1

check "nothing is enabled by the installation, and there are no user units"
expect_status 1 run systemctl is-enabled greeter-tls@993.socket
expect "" run systemctl list-units --plain --no-legend --all 'greeter-tls@*'
expect_status 1 run test -e /usr/lib/systemd/user/greeter-tls@.socket

check "without a part of it, the start fails and names what is missing"
said() { journal "--unit=greeter-tls@993.$1" --output=cat --grep="$2" || :; }
run mv /usr/sbin/haproxy /usr/sbin/haproxy.saved
expect_status 1 run systemctl start greeter-tls@993.socket
expect "/usr/sbin/haproxy is missing: install the package haproxy" said socket haproxy
run systemctl stop greeter@993.socket
run mv /usr/sbin/haproxy.saved /usr/sbin/haproxy
expect_status 1 run systemctl start greeter-tls@993.socket
expect_match "^greeter@993.socket is not at /run/greeter-tls/993: install the example tls-socket.conf" said socket example
run systemctl stop greeter@993.socket
run systemctl reset-failed 'greeter*'
run install -D -m644 "$examples/tls-socket.conf" /etc/systemd/system/greeter@993.socket.d/tls.conf
run systemctl daemon-reload
run systemctl start greeter-tls@993.socket
run timeout 2 openssl s_client -connect 127.0.0.1:993 </dev/null >/dev/null 2>&1 || :
has_reason() { [[ -n $(said service "$1") ]]; }
expect_within 10 has_reason "no certificate: install the example tls-certificate.conf"
run systemctl stop greeter-tls@993.socket
expect_status 3 run systemctl is-active greeter@993.socket
run systemctl reset-failed 'greeter*'

check "the commands of the manual open a port"
new_certificate mail.example.org
commands=$(block "TLS PORTS" 1)
run sh -euc "$commands" >"$container/install" 2>&1 || fail "$(cat "$container/install")"
run sh -euc "$(block "TLS PORTS" 2)" >"$container/enable" 2>&1 || fail "$(cat "$container/enable")"
cursor=$(journal_cursor)
expect "greeted 1
unclean 0
reset 0
lost 0" run tls_load 127.0.0.1 993 "$bye" --ca "$live/fullchain.pem"

check "the units are valid; the exposure of both services"
for unit in greeter-tls@993.socket greeter-tls@993.service; do
	run sh -c "systemd-analyze verify --man=no $unit 2>&1 || true" >"$container/verify"
	expect "" eval "grep -vE \"Unknown key '(RestartSteps|RestartMaxDelaySec|BindLogSockets)'|Failed to parse service type, ignoring: notify-reload|Failed to parse boolean value, ignoring: disconnected\" '$container/verify' || true"
done
for unit in greeter-tls@993.service greeter@993.service; do
	note "$unit: $(run systemd-analyze security --no-pager "$unit" | sed -n 's/^.*Overall exposure level for [^:]*: //p')"
done
expect_status 0 run systemd-analyze security --no-pager --threshold=4 greeter-tls@993.service
expect_status 0 run systemd-analyze security --no-pager --threshold=2 greeter@993.service

check "the key is readable by root alone, and HAProxy sees nothing of the host but its socket"
pid=$(property MainPID greeter-tls@993.service)
user=$(run stat --format=%u "/proc/$pid")
[[ $user -ge 61184 && $user -le 65519 ]] || fail "$user is not the ID of a dynamic user"
key=/run/credentials/greeter-tls@993.service/cert.pem.key
expect_status 0 run cmp "$key" "$live/privkey.pem"
for file in "$key" "$live/privkey.pem"; do
	expect_status 1 run setpriv --reuid=nobody --regid=nogroup --clear-groups cat "$file"
	expect_match "Permission denied" echo "$output"
done
expect "/run/greeter-tls/993
$key
${key%.key}" eval "visible $pid | grep -v '^/etc/ssl/openssl.cnf\$' | LC_ALL=C sort -r"
# Nor is a file left in the directory that all services see.
expect "" run find /run/greeter-root ! -type d

check "other users cannot claim an address at the inner socket"
header=$'PROXY TCP4 203.0.113.9 192.0.2.1 1234 993\r\n'
expect "* BYE Closed for maintenance"$'\r' eval "run socat -t 5 - UNIX-CONNECT:/run/greeter-tls/993 <<<'$header'"
expect_status 1 run setpriv --reuid=nobody --regid=nogroup --clear-groups socat -u UNIX-CONNECT:/run/greeter-tls/993 -
expect_match "Permission denied" echo "$output"

check "the client's address is in the journal of greeter: IPv4, IPv6"
expect_status 0 run tls_load 192.0.2.1 993 "$bye" --sources 198.51.100.7
expect_status 0 run tls_load 2001:db8::1 993 "$bye" --sources 2001:db8:1:7::1
for address in 198.51.100.7 2001:db8:1:7::1; do
	expect_match "greeted $address port [0-9]+ on '993'" journal --output=cat --unit=greeter@993.service
done

check "1,000 clients, 50 at once: silent, with a request first, with 60 kB first; TLS 1.2"
cursor=$(journal_cursor)
for send in silent request 60000; do
	load "1,000 $send" 192.0.2.1 993 "$bye" --clients 1000 --at-once 50 --send "$send" --sources "$sources"
	wait_for "1,000 $send"
done
load "200 over IPv6" 2001:db8::1 993 "$bye" --clients 200 --at-once 50 --sources 2001:db8:1:0::1
wait_for "200 over IPv6"
load "200 with TLS 1.2" 192.0.2.1 993 "$bye" --clients 200 --at-once 50 --send request --tls1.2 --sources "$sources"
wait_for "200 with TLS 1.2"
expect 0 property NRestarts greeter-tls@993.service
expect "" journal --output=cat --unit=greeter-tls@993.service "--after-cursor=$cursor"

# under_load NAME COUNT COMMAND...: repeats the command while so many clients connect, and
# again until it was repeated five times. All clients are greeted.
under_load() {
	local name=$1 count=$2 times=0
	shift 2
	until [[ $times -ge 5 ]]; do
		load "$name" 192.0.2.1 993 "$bye" --clients "$count" --at-once 50 --send request --sources "$sources"
		while clients_are_running "$name"; do
			sleep 0.4
			"$@"
			times=$((times + 1))
		done
		wait_for "$name"
	done
	note "$times times"
}

check "restarts of HAProxy and of greeter under load: no client is lost"
under_load "HAProxy restarted" "$(size 3000 6000)" run systemctl restart greeter-tls@993.service
under_load "greeter restarted" "$(size 3000 6000)" run systemctl restart greeter@993.service
under_load "greeter reloaded" "$(size 3000 6000)" run systemctl try-reload-or-restart 'greeter@*.service'

check "renewal under load, by the hook for certbot: no client is lost, and the new certificate is used"
fingerprint() {
	run sh -c 'openssl s_client -connect 127.0.0.1:993 -servername mail.example.org </dev/null 2>/dev/null |
		openssl x509 -noout -fingerprint -sha256'
}
before=$(fingerprint)
[[ -n $before ]] || fail "no certificate"
renew() {
	new_certificate mail.example.org
	# As certbot runs a deploy hook.
	run env RENEWED_LINEAGE="$live" RENEWED_DOMAINS=mail.example.org \
		/etc/letsencrypt/renewal-hooks/deploy/greeter-tls
}
under_load "renewed" "$(size 3000 6000)" renew
[[ $(fingerprint) != "$before" ]] || fail "the old certificate is still used"
expect "$(run openssl x509 -noout -fingerprint -sha256 -in "$live/fullchain.pem")" fingerprint

check "the hook starts nothing that is stopped"
run systemctl stop greeter-tls@993.socket
expect_status 3 run systemctl is-active greeter-tls@993.service
run /etc/letsencrypt/renewal-hooks/deploy/greeter-tls
expect_status 3 run systemctl is-active greeter-tls@993.service
is_closed 127.0.0.1:993 || fail "the port is open"
run systemctl start greeter-tls@993.socket

check "several certificates: the name that the client asks for selects one"
new_certificate www.example.org /etc/letsencrypt/live/www.example.org
write /etc/systemd/system/greeter-tls@.service.d/www.conf <<'END'
[Service]
LoadCredential=www.pem:/etc/letsencrypt/live/www.example.org/fullchain.pem
LoadCredential=www.pem.key:/etc/letsencrypt/live/www.example.org/privkey.pem
END
run systemctl daemon-reload
run systemctl restart greeter-tls@993.socket
for name in mail www; do
	expect_match "greeted 1" run tls_load 192.0.2.1 993 "$bye" --ca "/etc/letsencrypt/live/$name.example.org/fullchain.pem" --name "$name.example.org"
done
run rm /etc/systemd/system/greeter-tls@.service.d/www.conf
run systemctl daemon-reload
run systemctl restart greeter-tls@993.socket

check "a key that is broken or missing: the port stays open, and the waiting client is served after the fix"
run systemctl stop greeter-tls@993.service 2>/dev/null
run sh -c "cp $live/privkey.pem /root/saved && echo broken >$live/privkey.pem"
load "waiting" 192.0.2.1 993 "$bye" --sources "$sources"
expect_within 10 has_reason "private key"
note "$(run journalctl --quiet --no-pager --output=cat --unit=greeter-tls@993.service --grep='private key' --lines=1 | cut -c -150)"
expect active run systemctl is-active greeter-tls@993.socket
run cp /root/saved "$live/privkey.pem"
wait_for "waiting"
run systemctl stop greeter-tls@993.service 2>/dev/null
run mv "$live/privkey.pem" /root/saved
load "waiting" 192.0.2.1 993 "$bye" --sources "$sources"
expect_within 10 has_reason "Failed to set up credentials"
expect active run systemctl is-active greeter-tls@993.socket
run mv /root/saved "$live/privkey.pem"
wait_for "waiting"

# The connections to port 993 that are open.
open_connections() { run ss --no-header --tcp --numeric state established '( sport = :993 )' | wc -l; }
write /root/silent.py <<'END'
"""Connections that never send a byte, and how long they are open."""
import socket
import sys
import time

connections = [
    socket.create_connection(("192.0.2.1", 993), 30, ("198.51.100.1", 0))
    for _ in range(int(sys.argv[1]))
]
start = time.monotonic()
print("connected", flush=True)
times = []
for connection in connections:
    connection.settimeout(30)
    try:
        connection.recv(1)
    except ConnectionResetError:
        pass
    times.append(time.monotonic() - start)
print("closed after at most", round(max(times)), "seconds")
END
start_silent() {
	run timeout 60 python3 /root/silent.py "$1" >"$container/silent" 2>&1 &
	silent=$!
	for _ in {1..200}; do
		grep -q connected "$container/silent" && return
		sleep 0.1
	done
	fail "silent clients: $(cat "$container/silent")"
}
are_open() { [[ $(open_connections) == "$1" ]]; }

check "the limit per address: 20 silent connections of 40 are kept, for 10 seconds; others are greeted"
start_silent 40
expect_within 5 are_open 20
load "100 of other addresses" 192.0.2.1 993 "$bye" --clients 100 --at-once 20 --sources 198.51.100.2
wait_for "100 of other addresses"
expect 20 open_connections
wait "$silent"
expect_match "closed after at most (9|10|11) seconds" cat "$container/silent"
expect 0 open_connections
printf '%s\n' '[Service]' Environment=CONNECTIONS_PER_SOURCE=0 |
	write /etc/systemd/system/greeter-tls@993.service.d/limit.conf
run systemctl daemon-reload
run systemctl restart greeter-tls@993.service
start_silent 40
expect_within 5 are_open 40
wait "$silent"
run rm -r /etc/systemd/system/greeter-tls@993.service.d
run systemctl daemon-reload
run systemctl stop greeter-tls@993.socket

# -- Maintenance --------------------------------------------------------------------

check "both ports of Dovecot and nginx: the commands of the manual"
run sh -euc "$(block "TLS PORTS" 3)" >"$container/install" 2>&1 || fail "$(cat "$container/install")"
run sh -euc "$(block "TLS PORTS" 6)" >"$container/install" 2>&1 || fail "$(cat "$container/install")"
# The services have the same certificate.
if run dovecot --version | grep -q '^2\.3'; then
	write /etc/dovecot/conf.d/99-tls.conf <<<"ssl = yes
ssl_cert = <$live/fullchain.pem
ssl_key = <$live/privkey.pem"
else
	write /etc/dovecot/conf.d/99-tls.conf <<<"ssl = yes
ssl_server_cert_file = $live/fullchain.pem
ssl_server_key_file = $live/privkey.pem"
fi
write /etc/nginx/conf.d/tls.conf <<END
server {
	listen 443 ssl;
	listen [::]:443 ssl;
	root /var/www/html;
	index index.nginx-debian.html;
	ssl_certificate $live/fullchain.pem;
	ssl_certificate_key $live/privkey.pem;
}
END
for service in dovecot nginx; do
	run systemctl start "$service.service"
	expect_within 20 is_served "$service"
done
run sh -euc "$(block "TLS PORTS" 4)"
expect_within 20 is_in_maintenance dovecot
expect_status 3 run systemctl is-active dovecot.service
run sh -euc "$(block "TLS PORTS" 5)"
expect_within 20 is_served dovecot
for unit in greeter@143.socket greeter@993.socket greeter-tls@993.socket; do
	expect_status 3 run systemctl is-active "$unit"
done

# switch SERVICE DIRECTION UNIT...: one switch, of which both ports are measured.
declare -A times=()
switch() {
	local service=$1 direction=$2 result
	shift 2
	# With a real-time priority, as the services start many processes.
	result=$(run chrt --fifo 1 closed_time "${plain[$service]}" closed_time "${tls[$service]}" systemctl start "$@") ||
		fail "$service $direction: $result"
	# The inner measurement, of the port with TLS, prints first.
	times[$service-$direction-tls]+="$(sed -n '1s/ .*//p' <<<"$result") "
	times[$service-$direction-plain]+="$(sed -n '2s/ .*//p' <<<"$result") "
}

rounds=$(size 4 20)
check "$rounds switches of both ports in each direction for each service: none fails"
for ((n = 0; n < rounds; n++)); do
	for service in dovecot nginx; do
		# shellcheck disable=SC2046 # one word per unit
		switch "$service" there $(sockets_of "$service")
		is_in_maintenance "$service" || fail "$service: $(first_line "${plain[$service]}"), $(first_line "${tls[$service]}")"
		expect_status 3 run systemctl is-active "$service.service"
		switch "$service" back "$service.service"
		is_served "$service" || fail "$service: $(first_line "${plain[$service]}"), $(first_line "${tls[$service]}")"
	done
	# The start limit of the services, as it is in their packages: five starts within
	# ten seconds.
	sleep 2
done
note "milliseconds without a listener, median (maximum)"
note "$(printf '%-8s %5s %12s %12s' '' port 'to greeter' back)"
for service in dovecot nginx; do
	for kind in plain tls; do
		port=${plain[$service]}
		[[ $kind == plain ]] || port=${tls[$service]}
		# shellcheck disable=SC2086 # one word per value
		note "$(printf '%-8s %5s %12s %12s' "$service" "$port" \
			"$(statistics ${times[$service-there-$kind]})" "$(statistics ${times[$service-back-$kind]})")"
	done
done
expect_nothing_failed

check "the way back with 15 silent clients of the port with TLS: HAProxy waits a second for them"
run systemctl start greeter@143.socket greeter-tls@993.socket
expect_within 10 is_in_maintenance dovecot
start_silent 15
started=$EPOCHREALTIME
run systemctl start dovecot.service
note "$(seconds_since "$started" | cut -c -3) s"
[[ $(seconds_since "$started" | sed 's/\..*//') -lt 4 ]] || fail "it took too long"
expect_within 10 is_served dovecot
wait "$silent" || :

check "only one of the two sockets: the other port is closed, as the manual says"
run systemctl start greeter-tls@443.socket
is_line 443 "HTTP/1.1 503" || fail "443: $(first_line 443)"
is_closed 127.0.0.1:80 || fail "port 80 is open"
expect_manual "Starting only one of the two sockets leaves the other port closed"
run systemctl start greeter@80.socket
expect_within 10 is_in_maintenance nginx

check "HTTPS: the response follows the request; a silent client waits a second for it"
program 22 curl -sS --fail --cacert "$live/fullchain.pem" https://mail.example.org/
expect_output "The requested URL returned error: 503"
program 0 curl -sS --include --cacert "$live/fullchain.pem" https://mail.example.org/
expect_output "HTTP/1.1 503 Service Unavailable" "Retry-After: 3600" "Back in an hour."
program 8 wget --tries=1 -O - --ca-certificate="$live/fullchain.pem" https://mail.example.org/
expect_output "503 Service Unavailable"
text='HTTP/1.1 503 Service Unavailable\r\nRetry-After: 3600\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\nClosed for maintenance. Back in an hour.\r\n'
load "1,000 requests" 192.0.2.1 443 "$text" --clients 1000 --at-once 50 --send request --sources "$sources"
wait_for "1,000 requests"
started=$EPOCHREALTIME
load "silent" 192.0.2.1 443 "$text" --sources "$sources"
wait_for "silent"
[[ $(seconds_since "$started" | sed 's/\..*//') -ge 1 ]] || fail "the response came before the request"

check "clients of mail: what they show"
for port in 465 995; do
	run install -D -m644 "$examples/tls-socket.conf" "/etc/systemd/system/greeter@$port.socket.d/tls.conf"
done
run systemctl daemon-reload
# First the ports of Dovecot, which has port 995 as well.
run systemctl start greeter@143.socket greeter-tls@993.socket
run systemctl start greeter-tls@465.socket greeter-tls@995.socket
program 8 curl -sS -v --cacert "$live/fullchain.pem" imaps://mail.example.org/
expect_output "< * BYE Closed for maintenance"
program 8 curl -sS -v --cacert "$live/fullchain.pem" pop3s://mail.example.org/
expect_output "< -ERR [SYS/TEMP] Service unavailable for maintenance"
program 8 curl -sS -v --cacert "$live/fullchain.pem" smtps://mail.example.org/ --mail-from me@example.net
expect_output "< 421 4.3.2 mail.example.org Closed for maintenance, please try again later"
program 1 python3 -c 'import imaplib, ssl; imaplib.IMAP4_SSL("192.0.2.1", ssl_context=ssl._create_unverified_context())'
expect_output "Closed for maintenance"
program 1 python3 -c 'import smtplib, ssl; smtplib.SMTP_SSL("192.0.2.1", context=ssl._create_unverified_context())'
expect_output "smtplib.SMTPConnectError: (421, b'4.3.2 mail.example.org Closed for maintenance, please try again later')"
run systemctl stop greeter-tls@465.socket greeter-tls@995.socket
for port in 465 995; do expect_status 3 run systemctl is-active "greeter@$port.socket"; done

check "a service that fails: greeter takes both ports"
for service in dovecot nginx; do
	run systemctl start "$service.service"
	expect_within 20 is_served "$service"
	run systemctl kill --kill-whom=all --signal=KILL "$service.service"
	expect_within 20 is_in_maintenance "$service"
	run systemctl start "$service.service"
	expect_within 20 is_served "$service"
done

check "all of it enabled: after a boot the services have their ports; greeter those of one that fails"
run systemctl enable --quiet dovecot.service nginx.service
# shellcheck disable=SC2046 # one word per unit
run systemctl enable --quiet $(sockets_of dovecot) $(sockets_of nginx) greeter@993.socket greeter@443.socket
run mv /etc/nginx/nginx.conf /etc/nginx/saved
reboot degraded
run ip address add 192.0.2.1/24 dev lo
expect_within 20 is_served dovecot
for unit in greeter@143.socket greeter@993.socket greeter-tls@993.socket; do
	expect_status 3 run systemctl is-active "$unit"
done
expect_within 20 is_in_maintenance nginx
expect failed run systemctl is-failed nginx.service
run mv /etc/nginx/saved /etc/nginx/nginx.conf
run systemctl start nginx.service
expect_within 20 is_served nginx
expect "" eval "run journalctl --quiet --no-pager --grep='ordering cycle|start-limit' || :"
expect_nothing_failed

check "a drop-in of the manual: the socket without TLS starts the other one"
run sh -euc "$(block "TLS PORTS" 7)"
run systemctl start greeter@143.socket
expect_within 20 is_in_maintenance dovecot
run systemctl start dovecot.service
expect_within 20 is_served dovecot

# -- The cost ---------------------------------------------------------------------------

# The microseconds of CPU that units have used, from their control groups.
cpu_usec() {
	local unit total=0
	for unit; do
		total=$((total + $(sed -n 's/^usage_usec //p' \
			"$cgroup/container$containers/payload$(property ControlGroup "$unit" | sed 's|.*/payload||')/cpu.stat")))
	done
	echo "$total"
}
# measure NAME PORT SEND UNIT...: one run of clients of a port; adds to the table.
declare -A cost=() lost=() reset=() unclean=()
measure() {
	local name=$1 port=$2 send=$3 before
	shift 3
	# shellcheck disable=SC2154
	before=$(cpu_usec "$@")
	run tls_load 192.0.2.1 "$port" "$bye" --clients "$clients" --at-once 50 --send "$send" \
		--sources "$sources" >"$container/result" 2>/dev/null || :
	cost[$name-$send]+="$((($(cpu_usec "$@") - before) / clients)) "
	for result in lost reset unclean; do
		declare -n counts=$result
		counts[$name-$send]=$((${counts[$name-$send]-0} + $(sed -n "s/^$result //p" "$container/result")))
	done
}

clients=$(size 300 2000) cost_rounds=$(size 1 5)
check "the cost beside nginx: $cost_rounds times $clients clients of each kind; greeter loses and resets none"
run systemctl stop dovecot.service nginx.service
for number in {0..63}; do
	printf 'address add %s dev lo\n' "198.51.100.$((number + 1))/32"
done | run ip -batch - 2>/dev/null
write /etc/nginx/stream.conf <<END
load_module modules/ngx_stream_module.so;
worker_processes 1;
pid /run/nginx-stream.pid;
events { worker_connections 4096; }
stream {
	server {
		listen 4993 ssl;
		ssl_certificate $live/fullchain.pem;
		ssl_certificate_key $live/privkey.pem;
		return "$bye";
	}
}
END
run systemd-run --quiet --unit=nginx-stream --property=Type=exec nginx -c /etc/nginx/stream.conf -g 'daemon off;'
run systemctl start greeter-tls@993.socket
for port in 993 4993; do expect_within 10 run tls_load 192.0.2.1 "$port" "$bye" --sources "$sources"; done
for ((n = 0; n < cost_rounds; n++)); do
	for send in silent request 60000; do
		measure greeter 993 "$send" greeter-tls@993.service greeter@993.service
		measure nginx 4993 "$send" nginx-stream.service
	done
done
note "$(printf '%-8s %-8s %24s %6s %6s %6s' '' first 'us of CPU, median (max)' lost reset unclean)"
for send in silent request 60000; do
	for name in greeter nginx; do
		# shellcheck disable=SC2086 # one word per value
		note "$(printf '%-8s %-8s %24s %6s %6s %6s' "$name" "$send" "$(statistics ${cost[$name-$send]})" \
			"${lost[$name-$send]}" "${reset[$name-$send]}" "${unclean[$name-$send]}")"
	done
	expect "0 0 0" echo "${lost[greeter-$send]} ${reset[greeter-$send]} ${unclean[greeter-$send]}"
done
run systemctl stop nginx-stream.service greeter-tls@993.socket

check "the removal of the package closes the port, and its purge leaves no unit"
run systemctl start greeter-tls@443.socket
is_line 443 "HTTP/1.1 503" || fail "443: $(first_line 443)"
run apt-get purge -y greeter >"$container/apt.log" 2>&1 || fail "$(cat "$container/apt.log")"
is_closed 127.0.0.1:443 || fail "the port is open"
expect "" run systemctl list-units --plain --no-legend --state=active 'greeter*'
expect "" run find /etc/systemd/system -name 'greeter*.socket'
end_of_tests
