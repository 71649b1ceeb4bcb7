#!/bin/bash
# Maintenance of Postfix, Dovecot, vsftpd and nginx with greeter@PORT.socket and the
# example drop-ins: how long the port is closed, which unit has it after a boot and a
# failure, what ends maintenance, and what clients of each protocol report.
#   tests/container/test-maintenance.sh [soak] [bookworm|trixie|testing]
# With "soak", twenty switches in each direction for each service.
. "$(dirname "$0")/arguments.sh" trixie "$@"
image=maintenance-$SUITE packages="postfix dovecot-imapd dovecot-pop3d vsftpd nginx swaks rsync git slrn inetutils-telnet"
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/load.sh" "$full"

declare -A port_of=([postfix]=25 [dovecot]=143 [vsftpd]=21 [nginx]=80)
# What the first line from each service begins with, and from greeter.
declare -A own_line=([postfix]="220 mail.example.org" [dovecot]="* OK" [vsftpd]="220 " [nginx]="HTTP/1.1 200")
declare -A greeter_line=([postfix]="421 4.3.2 mail.example.org" [dovecot]="* BYE" [vsftpd]="421 " [nginx]="HTTP/1.1 503")
services="postfix dovecot vsftpd nginx"
examples=/usr/share/doc/greeter/examples

create_container
for service in $services; do
	rm -f "$container/root/etc/systemd/system/multi-user.target.wants/$service.service"
done
echo mail.example.org >"$container/root/etc/hostname"
write /etc/hosts <<<$'127.0.0.1 localhost\n192.0.2.1 mail.example.org\n192.0.2.2 sender.example.net'
write /etc/postfix/main.cf <<'END'
compatibility_level = 3.6
myhostname = mail.example.org
mydestination = example.org, localhost
inet_interfaces = all
END
sed -i 's/^listen=NO/listen=YES/; s/^listen_ipv6=YES/listen_ipv6=NO/' "$container/root/etc/vsftpd.conf"
boot
note "$(run systemctl --version | head -n 1), $(run sh -c '. /etc/os-release; echo "$PRETTY_NAME"')"
install_greeter
for address in 192.0.2.1/24 192.0.2.2/24; do run ip address add "$address" dev lo; done
run useradd --create-home you

copy_in "$repository/tests/container/closed_time" /usr/local/bin

# first_line SERVICE: prints the first line that a client receives.
first_line() {
	run timeout 10 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$0"
		[[ $0 != 80 ]] || printf "GET / HTTP/1.0\r\n\r\n" >&3
		head -n 1 <&3 | tr -d "\r"' "${port_of[$1]}"
}
is_served() { [[ $(first_line "$1") == "${own_line[$1]}"* ]]; }
is_in_maintenance() { [[ $(first_line "$1") == "${greeter_line[$1]}"* ]]; }

# install_example FORM SERVICE: runs the commands at the head of an example.
install_example() {
	local commands
	commands=$(run sed -n 's/^#   \(install \|systemctl daemon-reload\)/\1/p' "$examples/$1-$2.conf")
	[[ $commands == install*$'\n'"systemctl daemon-reload" ]] || fail "$1-$2.conf: $commands"
	# On Debian 12 Postfix runs in another unit.
	if [[ $SUITE == bookworm && $1-$2 == fallback-postfix ]]; then
		run install -D -m644 "$examples/$1-$2.conf" /etc/systemd/system/postfix@-.service.d/greeter.conf
	fi
	run sh -euc "cd $examples && $commands"
}
remove_examples() {
	run sh -euc 'rm -rf /etc/systemd/system/*.service.d/greeter.conf /etc/systemd/system/greeter@*.socket.d
		systemctl daemon-reload'
}


run install -D -m644 "$examples/greetings.toml" /etc/greeter/greeter.toml.d/greetings.toml
expect_match "settings are valid" run greeter --check

# switch SERVICE DIRECTION UNIT: one switch, which is measured.
declare -A times=() unanswered=()
precision=()
switch() {
	local result
	# With a real-time priority, as the services start many processes.
	result=$(run chrt --fifo 1 closed_time "${port_of[$1]}" systemctl start "$3") || fail "$1 $2: $result"
	read -r -a result <<<"$result"
	times[$1-$2]+="${result[0]} "
	unanswered[$1]+="${result[1]} "
	precision+=("${result[2]}")
}

rounds=$(size 2 10)
check "both forms, $((rounds * 2)) switches in each direction for each service: none fails"
for form in fallback maintenance; do
	for service in $services; do install_example "$form" "$service"; done
	for service in $services; do
		run systemctl start "$service.service"
		expect_within 10 is_served "$service"
	done
	for ((n = 0; n < rounds; n++)); do
		for service in $services; do
			switch "$service" there "greeter@${port_of[$service]}.socket"
			is_in_maintenance "$service" || fail "$service: $(first_line "$service")"
			expect_status 3 run systemctl is-active "$service.service"
			switch "$service" back "$service.service"
			is_served "$service" || fail "$service: $(first_line "$service")"
			expect_status 3 run systemctl is-active "greeter@${port_of[$service]}.socket"
		done
		# The start limit of the services, as it is in their packages: five starts
		# within ten seconds.
		sleep 2.6
	done
	# shellcheck disable=SC2086 # one word per unit
	run systemctl stop $services
	remove_examples
done
note "milliseconds without a listener, median (maximum); precision: $(statistics "${precision[@]}") ms"
note "$(printf '%-8s %12s %12s' '' 'to greeter' back)"
# shellcheck disable=SC2086 # one word per value
for service in $services; do
	note "$(printf '%-8s %12s %12s' "$service" \
		"$(statistics ${times[$service-there]})" "$(statistics ${times[$service-back]})")"
	slowest=$(statistics ${unanswered[$service]})
	slowest=${slowest#*(}
	[[ $slowest == "0)" ]] || note "         while it stopped, clients were not answered for up to ${slowest%)} ms"
done
logged() { run journalctl --quiet --no-pager --grep="$1" || :; }
expect "" logged 'start-limit|start request repeated|ordering cycle'
expect_nothing_failed

check "the way back with 100 silent clients: they do not delay it"
install_example fallback nginx
run systemctl start nginx.service greeter.socket
run systemctl start greeter@80.socket
expect_within 10 is_in_maintenance nginx
start_load held 127.0.0.1:80 --clients 100 --at-once 100 --hold --for 60 --timeout 60
expect_within 30 grep -q '^holding 100$' "$container/held"
switch nginx held nginx.service
note "${times[nginx-held]}ms without a listener"
is_served nginx || fail "nginx does not serve"
[[ ${times[nginx-held]%.*} -lt 1000 ]] || fail "it took too long"
stop_load held

check "what does not end maintenance: reload, try-restart, and all starts while it is masked"
run systemctl start greeter@80.socket
run systemctl try-restart nginx.service
expect_status 1 run systemctl reload nginx.service
is_in_maintenance nginx || fail "it has ended"
run systemctl mask --quiet --runtime nginx.service
expect_status 1 run systemctl restart nginx.service
is_in_maintenance nginx || fail "it has ended"
run systemctl unmask --quiet --runtime nginx.service
is_in_maintenance nginx || fail "it has ended"

check "what ends it: a restart, also by the scripts of a package if the service is enabled"
run systemctl enable --quiet nginx.service
run systemctl restart nginx.service
expect_within 10 is_served nginx
run systemctl start greeter@80.socket
is_in_maintenance nginx || fail "it has not begun"
run deb-systemd-invoke restart nginx.service
expect_within 10 is_served nginx

check "form fallback: greeter has the port when a service is killed or does not start"
run systemctl kill --kill-whom=all --signal=KILL nginx.service
expect_within 10 is_in_maintenance nginx
run mv /etc/nginx/nginx.conf /etc/nginx/saved
expect_status 1 run systemctl start nginx.service
expect_within 10 is_in_maintenance nginx
run mv /etc/nginx/saved /etc/nginx/nginx.conf
run systemctl start nginx.service
expect_within 10 is_served nginx
install_example fallback postfix
run systemctl start postfix.service
expect_within 10 is_served postfix
run cp /etc/postfix/main.cf /root/main.cf
run sh -c 'echo "inet_interfaces = 203.0.113.1" >>/etc/postfix/main.cf'
run systemctl restart postfix.service || :
expect_within 20 is_in_maintenance postfix
run cp /root/main.cf /etc/postfix/main.cf
run systemctl start postfix.service
expect_within 20 is_served postfix

check "mail: a second Postfix defers it during maintenance, and delivers it afterwards"
# The second one only sends. It has its own queue, and receives on port 2526.
write /usr/local/sbin/start-sender <<'END'
#!/bin/sh
set -eu
cp -r /etc/postfix /etc/postfix-sender
cat >/etc/postfix-sender/main.cf <<'MAIN'
compatibility_level = 3.6
myhostname = sender.example.net
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
relayhost = [192.0.2.1]
queue_directory = /var/spool/postfix-sender
data_directory = /var/lib/postfix-sender
maillog_file = /var/log/sender.log
# Further attempts after seconds instead of minutes.
queue_run_delay = 3s
minimal_backoff_time = 3s
maximal_backoff_time = 6s
MAIN
# No chroot, and another port.
sed -i 's/^smtp  *inet.*/127.0.0.1:2526 inet n - n - - smtpd/; s/^\(\w\S* *unix *\S* *\S* *\)y/\1n/' \
	/etc/postfix-sender/master.cf
mkdir -p /var/spool/postfix-sender
exec postfix -c /etc/postfix-sender start
END
run chmod +x /usr/local/sbin/start-sender
run systemd-run --quiet --unit=sender --property=Type=forking /usr/local/sbin/start-sender
run systemctl start greeter@25.socket
is_in_maintenance postfix || fail "it has not begun"
run swaks --server 127.0.0.1:2526 --from me@example.net --to you@example.org \
	--header "Subject: hello" --body "Still there?" --hide-all
text="421 4.3.2 mail.example.org Closed for maintenance, please try again later"
expect_within 30 run grep -q "status=deferred (host 192.0.2.1\[192.0.2.1\] refused to talk to me: $text" /var/log/sender.log
note "$(run grep -m 1 status=deferred /var/log/sender.log | sed 's/.*relay=/relay=/')"
run systemctl start postfix.service
expect_within 60 run grep -q status=sent /var/log/sender.log
note "$(run grep status=sent /var/log/sender.log | sed 's/.*relay=/relay=/')"
expect_within 10 run grep -q "^Still there?" /var/mail/you
run systemctl stop sender.service

check "both enabled, form fallback: after a boot the services have their ports; greeter that of one that fails"
for service in $services; do
	[[ $service == nginx || $service == postfix ]] || install_example fallback "$service"
	run systemctl enable --quiet "$service.service" "greeter@${port_of[$service]}.socket"
done
run mv /etc/nginx/nginx.conf /etc/nginx/saved
reboot degraded
for service in postfix dovecot vsftpd; do
	expect_within 20 is_served "$service"
	expect_status 3 run systemctl is-active "greeter@${port_of[$service]}.socket"
done
expect_within 20 is_in_maintenance nginx
expect failed run systemctl is-failed nginx.service
run mv /etc/nginx/saved /etc/nginx/nginx.conf
expect "" logged 'ordering cycle'

check "both enabled, form maintenance: after a boot greeter has them, until it is disabled"
remove_examples
for service in $services; do install_example maintenance "$service"; done
reboot
for service in $services; do
	expect_within 20 is_in_maintenance "$service"
	expect_status 3 run systemctl is-active "$service.service"
done
expect "" logged 'ordering cycle'
for service in $services; do
	run systemctl disable --quiet "greeter@${port_of[$service]}.socket"
	run systemctl start "$service.service"
	expect_within 20 is_served "$service"
done
run systemctl start greeter@80.socket
run systemctl mask --quiet --runtime nginx.service
expect_status 1 run systemctl start nginx.service
is_in_maintenance nginx || fail "it has ended"
run systemctl unmask --quiet --runtime nginx.service
# shellcheck disable=SC2086 # one word per unit
run systemctl disable --quiet --now $services greeter@80.socket
remove_examples

# -- The greetings ------------------------------------------------------------------

check "greetings.toml: all of its ports are opened by one command"
mapfile -t ports < <(sed -n 's/^\[greeting\.\([0-9]*\)\].*/\1/p' "$repository/systemd/examples/greetings.toml")
units=("${ports[@]/#/greeter@}")
run systemctl enable --quiet --now "${units[@]/%/.socket}"
note "${ports[*]}"
expect "21 23 25 80 110 119 143 587 873 9418" eval "printf '%s\n' ${ports[*]} | sort -n | paste -sd ' '"
run ip address add 192.0.2.1/24 dev lo

check "SMTP and submission: swaks shows the 421, also with several lines"
program 21 swaks --server 192.0.2.1 --to you@example.org --quit-after CONNECT
expect_output "<** $text"
program 21 swaks --server 192.0.2.1:587 --to you@example.org --quit-after CONNECT
expect_output "<** $text"
program 8 curl -sS --mail-from me@example.net --mail-rcpt you@example.org --upload-file /etc/hostname smtp://192.0.2.1/
expect_output "smtp-server response: 421"
# The alternative in the file: its lines replace the one above it.
run sed -i '/^\[greeting.25\]/,/^\[greeting.587\]/{/^message/d; s/^#\(message\|421\)/\1/}' \
	/etc/greeter/greeter.toml.d/greetings.toml
run systemctl try-reload-or-restart 'greeter@*.service'
program 21 swaks --server 192.0.2.1 --to you@example.org --quit-after CONNECT
expect_output "421-mail.example.org Closed for maintenance until 18:00 UTC." "421 4.3.2 Please try again later."

check "FTP, POP3, IMAP, HTTP: curl"
program 28 curl -sS -v ftp://192.0.2.1/
expect_output "< 421 Closed for maintenance"
program 8 curl -sS -v pop3://192.0.2.1/
expect_output "< -ERR [SYS/TEMP] Service unavailable for maintenance"
program 8 curl -sS -v imap://192.0.2.1/
expect_output "< * BYE Closed for maintenance"
program 0 curl -sS --include http://192.0.2.1/
expect_output "HTTP/1.1 503 Service Unavailable" "Retry-After: 3600" $'\n\nClosed for maintenance. Back in an hour.'

check "NNTP: slrn"
program 1 env TERM=xterm NNTPSERVER=192.0.2.1 script --quiet --return --command 'slrn -n --create -f /root/newsrc' /dev/null
expect_output "Reason: 400 Closed for maintenance"

check "rsync, and git"
program 5 rsync rsync://192.0.2.1/module/
expect_output "@ERROR: Closed for maintenance"
program 128 git clone git://192.0.2.1/repository
expect_output "fatal: remote error: Closed for maintenance"

check "telnet: a client that negotiates first receives the whole text"
write /root/.telnetrc <<<'DEFAULT toggle options'
program 0 sh -c 'mkfifo keys; sleep 60 >keys & telnet 192.0.2.1 <keys; status=$?; kill $!; exit $status'
expect_output $'This host is closed for maintenance until 18:00 UTC.\nPlease try again later.\nConnection closed by foreign host.'
[[ ${output%%This host*} == *"SENT WILL TERMINAL TYPE"* ]] || fail "telnet did not negotiate first"

check "greetings.toml: one command closes all of its ports"
run systemctl disable --quiet --now "${units[@]/%/.socket}"
expect "" eval "run ss --no-header --listening --tcp | grep -v -E ':4000\b' || :"
expect_nothing_failed
end_of_tests
