#!/bin/bash
# proxy_protocol = "required" behind real proxies: greeting and journal have the address
# that the client has, over IPv4 and IPv6.
#   tests/container/test-proxies.sh [trixie|testing]
# systemd-socket-proxyd(8) sends the header from systemd 262 on, which testing has.
suite=${1:-trixie}
[[ $suite != --image ]] || suite=trixie
export SUITE=$suite
image=proxies-$suite packages="haproxy nginx-light libnginx-mod-stream"
. "$(dirname "$0")/lib.sh"

create_container
rm "$container"/root/etc/systemd/system/multi-user.target.wants/{haproxy,nginx}.service
boot
systemd=$(run systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')
install_greeter
# The clients, the addresses that they connect to, and another host.
for address in 192.0.2.7 192.0.2.1 198.51.100.9 2001:db8::7 2001:db8::1; do
	run ip address add "$address" dev lo nodad
done

# A port of its own with the template, IPv4 and IPv6 on one socket.
write /etc/greeter/greeter.toml.d/proxied.toml <<'END'
log_exclude = ["127.0.0.1", "::1"]
[greeting.2525]
proxy_protocol = "required"
message = "421 {peer_addr} to {local_addr} {local_port}"
line_ending = "crlf"
END
run greeter --check >"$container/check"
expect_match "^greeting of sockets named '2525': [0-9]+ bytes, after a PROXY header$" cat "$container/check"
run systemctl enable --quiet --now greeter@2525.socket

# client ADDRESS TO PORT: prints what a client with this address receives.
client() {
	case $1 in
		*:*) run socat -u -T 10 "TCP:[$2]:$3,bind=[$1]" - ;;
		*) run socat -u -T 10 "TCP:$2:$3,bind=$1" - ;;
	esac
}

# expect_client ADDRESS TO PORT: greeting and journal have the addresses of the client's
# own connection.
expect_client() {
	local cursor
	cursor=$(journal_cursor)
	expect $"421 $1 to $2 $3"$'\r\n' client "$1" "$2" "$3"
	expect_within 5 eval "journal --after-cursor='$cursor' --unit=greeter@2525.service GREETER_RESULT=sent |
		grep -q '\"GREETER_PEER\":\"$1\"'"
	case $2 in
		*:*) local to="[$2]:$3" ;;
		*) local to="$2:$3" ;;
	esac
	journal --after-cursor="$cursor" --unit=greeter@2525.service | grep -qF "\"GREETER_LOCAL\":\"$to\"" ||
		fail "the journal does not have GREETER_LOCAL=$to"
}

check "HAProxy, send-proxy and send-proxy-v2, with one socket for IPv4 and IPv6"
write /etc/haproxy/haproxy.cfg <<'END'
global
    log /dev/log local0
defaults
    mode tcp
    timeout connect 5s
    timeout client 5s
    timeout server 5s
listen version1
    bind :::5001 v4v6
    server greeter 127.0.0.1:2525 send-proxy check inter 100ms
listen version2
    bind :::5002 v4v6
    server greeter [::1]:2525 send-proxy-v2 check check-send-proxy inter 100ms
listen ipv4only
    bind :5003
    server greeter 127.0.0.1:2525 send-proxy-v2 check port 2525 inter 100ms
END
run systemctl start haproxy.service
for port in 5001 5002 5003; do
	expect_client 192.0.2.7 192.0.2.1 "$port"
done
for port in 5001 5002; do
	expect_client 2001:db8::7 2001:db8::1 "$port"
done

check "HAProxy's checks are counted, and not logged, as its address is excluded"
sleep 2
expect_status 1 run journalctl --quiet --unit=greeter@2525.service --grep='127\.0\.0\.1 port|::1 port'
# Three servers, every 100 ms: some checks end before the header, some before the greeting.
status=$(property StatusText greeter@2525.service)
[[ $status != *invalid* && $status =~ \ ([0-9]+)\ gone && ${BASH_REMATCH[1]} -gt 15 ]] || fail "$status"
run systemctl stop haproxy.service

check "without log_exclude and with log_level = \"warn\" there is no warning about checks"
printf 'log_level = "warn"\n[limits]\nidle_timeout = "0s"\n' | write /etc/greeter/greeter.toml.d/zz-warn.toml
sed -i /log_exclude/d "$container/root/etc/greeter/greeter.toml.d/proxied.toml"
run systemctl restart greeter@2525.service
cursor=$(journal_cursor)
run systemctl start haproxy.service
sleep 3
run systemctl stop haproxy.service greeter@2525.service
expect "" run journalctl --quiet --output=cat --after-cursor="$cursor" --identifier=greeter
run rm /etc/greeter/greeter.toml.d/zz-warn.toml

check "nginx, stream with proxy_protocol on"
write /etc/nginx/nginx.conf <<'END'
include /etc/nginx/modules-enabled/*.conf;
events {}
stream {
    server {
        listen [::]:5004 ipv6only=off;
        proxy_pass 127.0.0.1:2525;
        proxy_protocol on;
    }
}
END
run systemctl start nginx.service
expect_client 192.0.2.7 192.0.2.1 5004
expect_client 2001:db8::7 2001:db8::1 5004
run systemctl stop nginx.service

check "curl --haproxy-protocol"
# curl speaks first; its header has the addresses of its own connection.
curl() { run curl --silent --show-error --max-time 10 --http0.9 --haproxy-protocol --interface "$1" "http://$2:2525/"; }
expect $'421 192.0.2.7 to 192.0.2.1 2525\r\n' curl 192.0.2.7 192.0.2.1
expect $'421 2001:db8::7 to 2001:db8::1 2525\r\n' curl 2001:db8::7 '[2001:db8::1]'

if [[ $systemd -ge 262 ]]; then
	check "systemd-socket-proxyd --proxy-protocol=v1, with one socket for IPv4 and IPv6"
	write /etc/systemd/system/proxyd.socket <<-'END'
		[Socket]
		ListenStream=5005
		BindIPv6Only=both
	END
	write /etc/systemd/system/proxyd.service <<-'END'
		[Service]
		ExecStart=/usr/lib/systemd/systemd-socket-proxyd --proxy-protocol=v1 127.0.0.1:2525
	END
	run systemctl daemon-reload
	run systemctl start proxyd.socket
	expect_client 192.0.2.7 192.0.2.1 5005
	expect_client 2001:db8::7 2001:db8::1 5005
fi

check "a direct client is not greeted, and counted"
cursor=$(journal_cursor)
expect "" client 192.0.2.7 192.0.2.1 2525 </dev/null
status() { property StatusText greeter@2525.service; }
expect_within 10 eval "status | grep -q 'gone\|invalid header'"
expect "" run sh -c 'printf "EHLO example.org\r\n" | socat -t 5 - TCP:192.0.2.1:2525,bind=192.0.2.7'
expect_within 5 eval "journal --after-cursor='$cursor' --unit=greeter@2525.service GREETER_RESULT=invalid_header |
	grep -q '\"GREETER_PEER\":\"192.0.2.7\"'"
expect_match "no greeting for 192.0.2.7 port [0-9]+ on '2525': no PROXY header" \
	run journalctl --quiet --output=cat --after-cursor="$cursor" --unit=greeter@2525.service
expect_match "send-proxy-v2" run journalctl --quiet --catalog --after-cursor="$cursor" --unit=greeter@2525.service
expect_within 10 eval "status | grep -q 'invalid header'"

check "the drop-in of the manual lets only the proxy connect"
awk '/^# PROXY PROTOCOL/ { inside = 1 } inside && /^\[Socket\]/ { print; found = 1; next } found && /^```/ { exit } found' \
	"$repository/man/greeter.7.scd" |
	sed 's/192.0.2.2:4000/192.0.2.1:2525/; s/192.0.2.10/192.0.2.7/' | write /etc/systemd/system/greeter@2525.socket.d/proxy.conf
run systemctl daemon-reload
run systemctl restart greeter@2525.socket
expect $'421 192.0.2.7 to 192.0.2.1 2525\r\n' curl 192.0.2.7 192.0.2.1
expect_status 28 run curl --silent --connect-timeout 2 --http0.9 --haproxy-protocol --interface 198.51.100.9 http://192.0.2.1:2525/
expect_nothing_failed
end_of_tests
