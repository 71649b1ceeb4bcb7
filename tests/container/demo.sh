#!/bin/bash
# Shows the package at work in a booted Debian: each command, and what it says.
. "$(dirname "$0")/lib.sh"

bold='' plain=''
[[ ! -t 1 ]] || bold=$'\e[1m' plain=$'\e[0m'
say() { printf '\n-- %s\n' "$*"; }
# What root types, or anybody: $1 is the prompt.
type_in() { printf '\n%s%s %s%s\n' "$bold" "$1" "${*:2}" "$plain"; }
show() {
	type_in '#' "$@"
	run "$@"
}
# What a client types.
client() {
	type_in '$' "$1"
	run sh -c "$1"
}

say "Booting Debian 13 with systemd, without a network."
boot
run sh -c '. /etc/os-release; echo "$PRETTY_NAME, $(systemctl --version | head -n 1)"'

say "Installing the package. It opens, enables and starts nothing."
deb=$(package)
copy_in "$deb" /root/packages
type_in '#' apt install "./${deb##*/}"
run apt install -y "/root/packages/${deb##*/}" 2>/dev/null | grep -E '^(Unpacking|Setting up) greeter'
show systemctl is-enabled greeter.socket || :
show ss --listening --tcp --no-header

say "One process for all clients: mode accept."
show systemctl enable --now greeter.socket
client 'socat - TCP:127.0.0.1:4000 </dev/null'
client 'socat - "TCP:[::1]:4000" </dev/null'
client 'curl --http0.9 -sS http://127.0.0.1:4000/'
sleep 1.2
show systemctl status --no-pager --lines=0 greeter.service

say "One process for each client: modes accepted and inet."
show systemctl enable --now greeter-accepted.socket greeter-inet.socket
client 'socat - TCP:127.0.0.1:4001 </dev/null'
client 'socat - TCP:127.0.0.1:4002 </dev/null'

say "Another text, without losing a client."
echo 'message = "421 {hostname} is closed, {peer_addr}; come back tomorrow"' |
	write /etc/greeter/greeter.toml.d/50-closed.toml
show cat /etc/greeter/greeter.toml.d/50-closed.toml
show systemctl reload greeter.service
client 'socat - TCP:127.0.0.1:4000 </dev/null'

say "What the journal has, of all three; and one entry with its fields."
run journalctl --sync
show journalctl --no-pager --identifier=greeter
show journalctl --no-pager --output=verbose --lines=1 --unit=greeter.service GREETER_RESULT=sent

say "Removing it stops everything."
rm -r "$machine/root/etc/greeter/greeter.toml.d"
type_in '#' apt purge greeter
run apt purge -y greeter 2>/dev/null | grep -E '^(Removing|Purging)'
show ss --listening --tcp --no-header
end
