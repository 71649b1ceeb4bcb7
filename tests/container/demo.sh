#!/bin/bash
# Demonstrates the package in a booted container: prints each command and its output.
. "$(dirname "$0")/lib.sh"

bold='' plain=''
[[ ! -t 1 ]] || bold=$'\e[1m' plain=$'\e[0m'

heading() {
	printf '\n-- %s\n' "$*"
}
# prompt CHARACTER COMMAND...: prints a command after the prompt of root (#) or of an
# ordinary user ($).
prompt() {
	printf '\n%s%s %s%s\n' "$bold" "$1" "${*:2}" "$plain"
}
# Runs a command as root.
show() {
	prompt '#' "$@"
	run "$@"
}
# Runs the shell command of a client.
client() {
	prompt '$' "$1"
	run sh -c "$1"
}

heading "Booting Debian 13 with systemd, without a network"
boot
run sh -c '. /etc/os-release; echo "$PRETTY_NAME, $(systemctl --version | head -n 1)"'

heading "Installing the package enables and starts nothing, and opens no port"
deb=$(package)
copy_in "$deb" /root/packages
prompt '#' apt install "./${deb##*/}"
run apt install -y "/root/packages/${deb##*/}" 2>/dev/null | grep -E '^(Unpacking|Setting up) greeter'
show systemctl is-enabled greeter.socket || :
show ss --listening --tcp --no-header

heading "Mode accept: one process for all connections"
show systemctl enable --now greeter.socket
client 'socat - TCP:127.0.0.1:4000 </dev/null'
client 'socat - "TCP:[::1]:4000" </dev/null'
client 'curl --http0.9 -sS http://127.0.0.1:4000/'
sleep 1.2
show systemctl status --no-pager --lines=0 greeter.service

heading "Modes accepted and inet: one process per connection"
show systemctl enable --now greeter-accepted.socket greeter-inet.socket
client 'socat - TCP:127.0.0.1:4001 </dev/null'
client 'socat - TCP:127.0.0.1:4002 </dev/null'

heading "Changing the text without losing a connection"
echo 'message = "421 {hostname} is closed, {peer_addr}; come back tomorrow"' |
	write /etc/greeter/greeter.toml.d/50-closed.toml
show cat /etc/greeter/greeter.toml.d/50-closed.toml
show systemctl reload greeter.service
client 'socat - TCP:127.0.0.1:4000 </dev/null'

heading "The journal of all modes, and one entry with its fields"
run journalctl --sync
show journalctl --no-pager --identifier=greeter
show journalctl --no-pager --output=verbose --lines=1 --unit=greeter.service GREETER_RESULT=sent

heading "Purging the package stops everything; it keeps files added by the administrator"
prompt '#' apt purge greeter
run apt purge -y greeter 2>/dev/null | grep -E '^(Removing|Purging)'
show ss --listening --tcp --no-header
show find /etc/greeter -type f
destroy_container
