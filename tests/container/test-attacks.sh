#!/bin/bash
# Clients that control packets, not only bytes: they acknowledge nothing, open no window,
# or close and never answer. With the packaged units, no such client kills the service, and
# a legitimate one waits less than a second. With the argument "soak", for longer.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/load.sh"

# The addresses of the attackers; a packet filter treats their packets differently.
ipv4=127.66.0.1
ipv6=fd00:66::1
# New connections of attackers per second.
rate=300
# connections of greeter.toml, and the clients that may wait in the backlog meanwhile.
bound=$((1024 + 2 * rate))

# Replaces the packet filter: hostile RULE...
hostile() {
	nsenter --net --target "$(leader)" -- nft -f - <<-END
		table inet attack
		delete table inet attack
		table inet attack {
			chain input {
				type filter hook input priority filter
				$(printf '%s\n' "$@")
			}
		}
	END
}

# The connections of a port in the kernel, whether a process has a descriptor of them or
# not. In FIN-WAIT-2 and TIME-WAIT, the kernel keeps a few bytes of a delivered one.
connections() {
	run ss --no-header --tcp --numeric state all exclude listening exclude time-wait \
		exclude fin-wait-2 "sport = :$1" | wc -l
}

# The memory of all TCP sockets, in KiB. Without a memory controller, this is what tells
# how much clients hold.
memory() {
	echo $(($(sed -n 's/^TCP:.* mem //p' /proc/net/sockstat) * 4))
}

# attack SECONDS ADDRESS ARGUMENT...: attackers connect for so long, with these arguments of
# greeter-load. Meanwhile legitimate clients connect with the arguments in the array legit.
legit=()
attack() {
	local seconds=$1 address=$2 most=0 count before most_memory=0 wait
	shift 2
	before=$(memory)
	start_load attackers "$address" "$@" --rate "$rate" --for "$seconds" --at-once 4000
	start_load legitimate "$address" "${legit[@]}" --rate 20 --for "$seconds" --timeout 60
	while kill -0 "${load_pids[legitimate]}" 2>/dev/null; do
		count=$(connections "${address##*:}")
		[[ $count -le $most ]] || most=$count
		count=$(($(memory) - before))
		[[ $count -le $most_memory ]] || most_memory=$count
		sleep 0.3
	done
	wait_for_load legitimate
	expect_none_lost legitimate
	wait=$(($(load_latency legitimate max) / 1000))
	run kill -TERM "$(cat "$container/root/root/attackers.pid")" 2>/dev/null || :
	wait_for_load attackers
	note "$(load_value attackers connected) attackers; at most $most connections in the kernel and" \
		"$((most_memory / 1024)) MiB more; the longest wait is $wait ms"
	[[ $most -gt 10 ]] || fail "the attack has no effect: only $most connections"
	[[ $most -le $bound ]] || fail "$most connections are in the kernel"
	[[ $wait -lt 1000 ]] || fail "a legitimate client waited $wait ms"
	expect 0 property NRestarts greeter.service
}

boot
install_greeter
run ip address add "$ipv6" dev lo nodad
run systemctl enable --quiet --now greeter.socket greeter-accepted.socket
write /etc/greeter/greeter.toml.d/attacks.toml <<'END'
[greeting.2525]
proxy_protocol = "required"
END
run systemctl enable --quiet --now greeter@2525.socket
short=$(size 6 20)
long=$(size 20 180)

no_data="tcp sport { 4000, 4001, 2525 } tcp flags & (fin | syn | rst) == fin drop"
no_packet="tcp sport { 4000, 4001, 2525 } tcp flags & (syn | rst) == 0 drop"
no_window="tcp dport { 4000, 4001, 2525 } tcp flags & syn == 0 tcp window set 0"

check "FIN without an acknowledgement, for $long s"
hostile "ip daddr $ipv4 $no_data"
attack "$long" 127.0.0.1:4000 --source $ipv4 --abandon 0

check "FIN without an acknowledgement, over IPv6"
hostile "ip6 daddr $ipv6 $no_data"
attack "$short" '[::1]:4000' --source $ipv6 --abandon 0

check "no acknowledgement at all"
hostile "ip daddr $ipv4 $no_packet"
attack "$short" 127.0.0.1:4000 --source $ipv4 --abandon 600

check "no acknowledgement at all, over IPv6"
hostile "ip6 daddr $ipv6 $no_packet"
attack "$short" '[::1]:4000' --source $ipv6 --abandon 600

check "no acknowledgement at all, from many addresses"
hostile "ip daddr 127.66.0.0/16 $no_packet"
sources=()
for n in {1..200}; do sources+=(--source "127.66.1.$n"); done
attack "$short" 127.0.0.1:4000 "${sources[@]}" --abandon 600

check "a window of zero bytes"
hostile "ip saddr $ipv4 $no_window"
attack "$short" 127.0.0.1:4000 --source $ipv4 --abandon 600

check "no acknowledgement after a PROXY header, which names another address each time"
hostile "ip daddr $ipv4 $no_packet"
legit=(--send 'PROXY UNKNOWN\r\n')
attack "$short" 127.0.0.1:2525 --source $ipv4 --abandon 0 \
	--send 'PROXY TCP4 192.0.2.7 192.0.2.1 49152 25\r\n'
legit=()

check "a window of zero bytes, and a greeting of 200 KB, for $long s"
write /etc/greeter/greeter.toml.d/large.toml <<<"message = '$(printf '%200000s' x)'"
run systemctl reload greeter.service
rate=100
hostile "ip saddr $ipv4 $no_window"
attack "$long" 127.0.0.1:4000 --source $ipv4 --abandon 600

check "the same, three times as fast, from clients that send 200 KB as well"
rate=300
attack "$short" 127.0.0.1:4000 --source $ipv4 --abandon 600 --talk 200000
rm "$container/root/etc/greeter/greeter.toml.d/large.toml"
run systemctl reload greeter.service

check "one process per connection: its own limits hold, and the port stays open"
hostile "ip daddr $ipv4 $no_data"
start_load attackers 127.0.0.1:4001 --source $ipv4 --abandon 0 --rate 60 --for 5
wait_for_load attackers
instances() { run systemctl list-units --no-legend 'greeter-accepted@*' | wc -l; }
[[ $(instances) -le 64 ]] || fail "there are $(instances) instances"
# Over MaxConnections=, a client reads the end. The backlog is served after the attack.
greets() { run greeter-load 127.0.0.1:4001 --expect 'This socket was already accepted\n'; }
expect_within 30 greets
expect_within 30 no_instances
expect_nothing_failed
end_of_tests
