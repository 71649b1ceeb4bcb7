# shellcheck shell=bash disable=SC2034 # haproxy_defaults is for the script
# HAProxy, and what it says of the servers of its proxy "web". Scripts source this file after
# lib.sh.

# The beginning of haproxy.cfg.
haproxy_defaults="global
    stats socket /run/haproxy.sock
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s"

# The columns of its statistics that make up the state of a server.
state_columns="status weight last_agt"

# server_state SERVER: prints the state of a server, with semicolons between the columns.
server_state() {
	run sh -c 'echo "show stat" | socat -t 5 - UNIX-CONNECT:/run/haproxy.sock' |
		awk -F, -v server="$1" -v names="$state_columns" '
			NR == 1 { sub(/^# /, ""); for (i = 1; i <= NF; i++) column[$i] = i }
			$1 == "web" && $2 == server {
				count = split(names, name, " ")
				for (i = 1; i <= count; i++) printf "%s%s", $column[name[i]], i < count ? ";" : "\n"
			}'
}

# expect_server SERVER PATTERN: waits until the state of a server matches.
expect_server() {
	# shellcheck disable=SC2053 # a pattern
	state_matches() { [[ $(server_state "$1") == $2 ]]; }
	expect_within 20 state_matches "$@"
	printf '        | %s: %s\n' "$1" "$(server_state "$1")"
}
