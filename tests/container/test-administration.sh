#!/bin/bash
# Recipes of greeter(7) for administrators, run as they are printed: some addresses are let
# through, maintenance begins and ends by itself, and HAProxy's agent follows its service.
#   tests/container/test-administration.sh [bookworm|trixie|testing]
. "$(dirname "$0")/arguments.sh" trixie "$@"
image=administration-$SUITE packages="postfix nginx haproxy nftables"
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/load.sh"
. "$(dirname "$0")/haproxy.sh"
. "$(dirname "$0")/manual.sh"

examples=/usr/share/doc/greeter/examples
create_container
for service in postfix nginx haproxy nftables; do
	rm -f "$container/root/etc/systemd/system"/*.target.wants/$service.service
done
echo mail.example.org >"$container/root/etc/hostname"
write /etc/hosts <<<$'127.0.0.1 localhost\n192.0.2.1 mail.example.org'
write /etc/postfix/main.cf <<'END'
compatibility_level = 3.6
myhostname = mail.example.org
mydestination = example.org, localhost
inet_interfaces = all
END
boot
note "$(run systemctl --version | sed -n 1p), $(run sh -c '. /etc/os-release; echo "$PRETTY_NAME"')"
install_greeter

# run_block SECTION N: runs a block of the manual; its output is in "$output".
run_block() {
	local commands
	commands=$(block "$@")
	sed 's/^/        $ /' <<<"$commands"
	output=$(run sh -euc "$commands" 2>&1) || fail "$commands: $output"
}

# -- Some addresses are let through -------------------------------------------------------

section="LET SOME ADDRESSES THROUGH"
# A network with clients of two addresses each: 192.0.2.10 and 2001:db8::10 are the
# administrator's.
run sh -euc '
	ip netns add clients
	ip link add server type veth peer name clients netns clients
	ip link set server up
	ip address add 192.0.2.1/24 dev server
	ip address add 2001:db8::1/64 dev server nodad
	ip -n clients link set lo up
	ip -n clients link set clients up
	for address in 192.0.2.10 192.0.2.20; do ip -n clients address add $address/24 dev clients; done
	for address in 2001:db8::10 2001:db8::20; do ip -n clients address add $address/64 dev clients nodad; done'

# Prints the three digits that a client of the first address receives from an address and
# port, or nothing.
write /usr/local/bin/code <<'END'
#!/bin/bash
exec 3< <(exec socat -u "TCP:$2:${3-25},bind=$1,connect-timeout=3" - 2>/root/error)
read -r -n 3 -t 5 code <&3
kill "$!" 2>/dev/null
echo "$code"
END
run chmod +x /usr/local/bin/code
code() { run ip netns exec clients code "$@"; }
administrator_is_served() {
	expect 220 code 192.0.2.10 192.0.2.1
	expect 220 code '[2001:db8::10]' '[2001:db8::1]'
	# The host itself.
	expect_match "^220 " run timeout 5 bash -c 'head -n 1 </dev/tcp/192.0.2.1/25'
}
expect_others() {
	expect "$1" code 192.0.2.20 192.0.2.1
	expect "$1" code '[2001:db8::20]' '[2001:db8::1]'
}
# Starts a session of another address: it sends a second command when the file "$1" exists.
session() {
	rm -f "$container/root/root/$1"
	run ip netns exec clients timeout 60 bash -c '
		exec 3<>/dev/tcp/192.0.2.1/25
		read -r line <&3; echo "$line"
		until [[ -e $0 ]]; do sleep 0.1; done
		printf "NOOP\r\n" >&3
		read -r line <&3; echo "$line"' "/root/$1" >"$container/$1" 2>&1 &
	session=$!
	expect_within 10 grep -q ^220 "$container/$1"
}
expect_session() {
	touch "$container/root/root/$1"
	wait "$session" || fail "the session '$1' has ended: $(cat "$container/$1")"
	expect_match "^250 " tail -n 1 "$container/$1"
}

check "the administrator reads 220, others 421, over both families; established sessions continue"
run_block "$section" 1
block "$section" 2 | write /etc/greeter/greeter.toml.d/2525.toml
run systemctl start postfix.service
reads_220() { [[ $(code 192.0.2.20 192.0.2.1) == 220 ]]; }
expect_within 20 reads_220
expect_others 220
session before
run_block "$section" 3
administrator_is_served
expect_others 421
for address in 192.0.2.20 2001:db8::20; do
	expect_match "greeted $address port [0-9]+ on '2525'" journal --output=cat --unit=greeter@2525.service
done
expect_session before

check "no connection fails while it begins and ends, five times"
write /usr/local/bin/connect <<'END'
#!/bin/bash
until [[ -e /root/stop ]]; do
	started=$EPOCHREALTIME
	code=$(code 192.0.2.20 192.0.2.1)
	echo "${code:-failed, from $started to $EPOCHREALTIME: $(cat /root/error)}"
done
END
run chmod +x /usr/local/bin/connect
run ip netns exec clients connect >"$container/connect" 2>&1 &
client=$!
for _ in {1..5}; do
	run_block "$section" 4 >/dev/null
	sleep 0.2
	run_block "$section" 3 >/dev/null
	sleep 0.2
done
run touch /root/stop
wait "$client"
note "$(sort "$container/connect" | uniq -c | tr -s ' \n' ' ')"
expect "220
421" sort -u "$container/connect"

check "the end: the table is gone, greeter's port closed, and a session that began meanwhile continues"
run_block "$section" 4
expect "" run nft list tables
expect_status 3 run systemctl is-active greeter@2525.socket
expect_others 220
session after
run_block "$section" 3
run_block "$section" 4
expect_session after

check "a firewall: it must allow the redirected connections, which does not open the port to others"
rule=$(block "$section" 5)
firewall() {
	write /root/firewall.nft <<-END
		table inet firewall
		delete table inet firewall
		table inet firewall {
			chain input {
				type filter hook input priority filter; policy drop;
				iifname lo accept
				ct state established,related accept
				meta l4proto ipv6-icmp accept
				tcp dport 25 accept
				$1
			}
		}
	END
	run nft -f /root/firewall.nft
}
run systemctl start greeter-let-through-smtp.service
firewall ""
expect_others ""
expect 220 code 192.0.2.10 192.0.2.1
firewall "$rule"
expect_others 421
administrator_is_served
expect "" code 192.0.2.20 192.0.2.1 2525
run nft delete table inet firewall

check "changed addresses are used after a reload"
run sed -i 's/192\.0\.2\.10 accept/{ 192.0.2.10, 192.0.2.20 } accept/' /etc/greeter/let-through-smtp.nft
expect_manual "run systemctl reload greeter-let-through-smtp.service"
run systemctl reload greeter-let-through-smtp.service
expect 220 code 192.0.2.20 192.0.2.1
expect 421 code '[2001:db8::20]' '[2001:db8::1]'
run cp "$examples/let-through-smtp.nft" /etc/greeter/
run systemctl reload greeter-let-through-smtp.service
expect_others 421

check "nftables.service, which flushes all tables: start, reload, restart, stop"
expect_status 3 run systemctl is-active nftables.service
run systemctl start nftables.service
expect_others 220
run systemctl reload greeter-let-through-smtp.service
expect_others 421
run systemctl reload nftables.service
expect_within 5 run nft list table inet greeter_let_through_smtp
expect_others 421
run systemctl restart nftables.service
expect_within 5 run nft list table inet greeter_let_through_smtp
expect_others 421
run systemctl stop nftables.service
expect_status 3 run systemctl is-active greeter-let-through-smtp.service
expect_others 220
run systemctl start greeter-let-through-smtp.service
run nft flush ruleset
run systemctl stop greeter-let-through-smtp.service
expect_others 220
expect_nothing_failed

# -- Maintenance begins and ends by itself ------------------------------------------------

section="MAINTENANCE THAT ENDS BY ITSELF"
run install -D -m644 "$examples/greetings.toml" /etc/greeter/greeter.toml.d/greetings.toml
for unit in postfix.service postfix@-.service; do
	run install -D -m644 "$examples/fallback-postfix.conf" "/etc/systemd/system/$unit.d/greeter.conf"
	# On Debian 12 Postfix runs in the second one.
	[[ $SUITE == bookworm ]] || break
done
run systemctl daemon-reload
run systemctl restart postfix.service
first_line() { run timeout 5 bash -c 'head -n 1 </dev/tcp/127.0.0.1/25' 2>/dev/null | cut -c -3; }
reads() { [[ $(first_line) == "$1" ]]; }
expect_within 20 reads 220

check "after two hours: the timer is seen, a second one is refused, and it is cancelled"
run_block "$section" 1
expect_within 10 reads 421
run_block "$section" 4
sed 's/^/        | /' <<<"$output"
grep -Eq '1h 59min .* postfix-back\.timer +postfix-back\.service' <<<"$output" || fail "the timer is not listed: $output"
expect_status 1 run sh -c "$(block "$section" 2)"
expect_match "already|fragment file" echo "$output"
note "$output"
run_block "$section" 5
run_block "$section" 4
[[ $output != *postfix-back* ]] || fail "the timer is listed: $output"
expect 421 first_line

check "at a time: the timer elapses once, and Postfix has its port again"
run_block "$section" 2
run_block "$section" 4
grep -q '2030-01-31 18:00:00 .*postfix-back.timer' <<<"$output" || fail "the timer is not listed: $output"
run_block "$section" 5
expect 421 first_line
time=$(run date --date='3 seconds' '+%Y-%m-%d %H:%M:%S')
run sh -euc "$(block "$section" 2 | sed "s/2030-01-31 18:00/$time/")"
expect_within 20 reads 220
run_block "$section" 4
[[ $output != *postfix-back* ]] || fail "the timer is listed: $output"
run_block "$section" 1
run_block "$section" 5
run systemctl start greeter@25.socket
run sh -euc "$(block "$section" 1 | sed 's/=2h/=2s/')"
expect_within 20 reads 220

check "maintenance begins at a time"
run_block "$section" 3
run_block "$section" 4
grep -q '2030-01-31 17:00:00 .*postfix-maintenance.timer' <<<"$output" || fail "the timer is not listed: $output"
run systemctl stop postfix-maintenance.timer
time=$(run date --date='3 seconds' '+%Y-%m-%d %H:%M:%S')
run sh -euc "$(block "$section" 3 | sed "s/2030-01-31 17:00/$time/")"
expect_within 20 reads 421

check "a date in the past does nothing"
output=$(run sh -euc "$(block "$section" 2 | sed 's/2030/2020/')" 2>&1) || fail "$output"
expect_output "in the past, proceeding anyway"
sleep 2
expect 421 first_line
# Newer versions of systemd unload it at once.
run systemctl stop postfix-back.timer 2>/dev/null || :

check "a service that does not start: greeter keeps the port, and the failure is listed"
run cp /etc/postfix/main.cf /root/main.cf
run sh -c 'echo "inet_interfaces = 203.0.113.1" >>/etc/postfix/main.cf'
run sh -euc "$(block "$section" 1 | sed 's/=2h/=2s/')"
unit_failed() { [[ $(property Result postfix-back.service) == exit-code ]] || [[ $(property ActiveState postfix@-.service) == failed ]]; }
expect_within 20 unit_failed
expect_within 20 reads 421
run systemctl list-units --failed --plain --no-legend | sed 's/^/        | /'
if [[ $SUITE != bookworm ]]; then
	expect_status 0 run systemctl is-failed postfix-back.service
	expect_status 1 run sh -euc "$(block "$section" 2)"
	run systemctl reset-failed postfix-back.service
fi
run cp /root/main.cf /etc/postfix/main.cf
run_block "$section" 2
run systemctl stop postfix-back.timer
run systemctl start postfix.service
expect_within 20 reads 220
run systemctl stop postfix.service

# -- The agent follows its service -----------------------------------------------------

section="AN AGENT THAT FOLLOWS ITS SERVICE"
state_columns="status weight slim last_agt"
expect_web() { expect "$1" run curl -sS -o /dev/null --write-out '%{http_code}' http://127.0.0.1:8080/; }

check "HAProxy follows the start, stop, kill and failure of nginx"
# greeter runs before: the manual says what that requires.
run systemctl start greeter.socket
expect $'This is a test\n' greeting 127.0.0.1:4000
run_block "$section" 1
server=$(block "HAPROXY: READY, DRAIN, MAINT, 75%" 2 | sed 's/192.0.2.10:80/127.0.0.1:80/; s/agent-port 4000 agent-inter 2s/agent-port 4010 agent-inter 100ms/')
[[ $server == *"agent-port 4010"* ]] || fail "$server"
write /etc/haproxy/haproxy.cfg <<END
$haproxy_defaults
listen web
    bind 127.0.0.1:8080
    $server
END
run systemctl start haproxy.service
expect_server web1 'UP;100;*;via agent : up'
expect_web 200
run systemctl stop nginx.service
expect_server web1 'DOWN (agent);100;*;via agent : down (nginx is stopped)'
expect_web 503
run systemctl start nginx.service
expect_server web1 'UP;100;*'
expect_web 200
run systemctl kill --kill-whom=main --signal=KILL nginx.service
expect_server web1 'DOWN*via agent : down (nginx is stopped)'
run systemctl start nginx.service
expect_server web1 'UP;100;*'
# This also kills the commands of the drop-in: the agent does not notice, but HAProxy's own
# check does.
run systemctl kill --kill-whom=all --signal=KILL nginx.service
expect_server web1 'DOWN;*'
expect_web 503
run systemctl start nginx.service
expect_server web1 'UP;100;*'
run mv /etc/nginx/nginx.conf /etc/nginx/saved
run systemctl restart nginx.service || :
expect_server web1 'DOWN (agent);100;*;via agent : down (nginx is stopped)'
run mv /etc/nginx/saved /etc/nginx/nginx.conf
run systemctl start nginx.service
expect_server web1 'UP;100;*'

check "the members of the group set the state and nothing else; others cannot"
run useradd --groups web-admins member
run useradd nonmember
as() { run runuser --user "$1" -- sh -c "$2"; }
drain=$(block "$section" 2) ready=$(block "$section" 3)
expect_status 2 as nonmember "$drain"
expect_match "Permission denied" echo "$output"
as member "$drain"
expect_server web1 'DRAIN (agent);100;*'
expect_web 503
as member "$ready"
expect_server web1 'UP;100;*'
as member 'echo 50% >/run/greeter/agent'
expect_server web1 'UP;50;*'
as member 'echo maxconn:30 >/run/greeter/agent'
expect_server web1 'UP;50;30;*'
expect_status 2 as member 'echo "message = \"x\"" >/etc/greeter/greeter.toml.d/agent.toml'
expect_status 1 as member 'rm /run/greeter/agent'
expect_status 1 as member 'touch /run/greeter/greeter.toml'

check "a line that is empty or invalid changes nothing; the state may change often"
as member "$ready"
expect_server web1 'UP;100;*'
as member ': >/run/greeter/agent'
sleep 1
expect_server web1 'UP;100;*'
as member "$ready"
sleep 1
as member 'echo "{drain}" >/run/greeter/agent'
sleep 1
expect $'up ready 100%\n' greeting 127.0.0.1:4010
run systemctl reset-failed greeter-agent-state.service
as member "for number in \$(seq 30); do echo \"\$number%\" >/run/greeter/agent; sleep 0.05; done; $drain"
expect_server web1 'DRAIN (agent);*'
expect active run systemctl is-active greeter-agent-state.path

check "a restart of nginx and a reboot end a drain; before the start of nginx HAProxy sees 'not started'"
run systemctl restart nginx.service
expect_server web1 'UP;100;*'
as member "$drain"
expect_server web1 'DRAIN (agent);*'
run systemctl enable --quiet haproxy.service
run systemctl disable --quiet nginx.service
reboot
expect_server web1 'DOWN (agent);*;via agent : down (not started)'
expect $'down # not started\n' greeting 127.0.0.1:4010
run systemctl start nginx.service
expect_server web1 'UP;100;*'

check "nginx starts without the file"
run systemctl stop nginx.service
run mv /run/greeter /run/greeter.saved
run systemctl start nginx.service
expect active run systemctl is-active nginx.service
run mv /run/greeter.saved /run/greeter
expect_nothing_failed
end_of_tests
