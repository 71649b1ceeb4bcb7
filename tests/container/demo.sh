#!/bin/bash
# Shows the package at work in a booted Debian: each command, and what it says.
. "$(dirname "$0")/lib.sh"

# Shows a command as users type it, and runs it.
show() {
	printf '\n\033[1m# %s\033[0m\n' "$*"
	run "$@"
}
# The same for what a client reads; the command line is the user's own.
client() {
	printf '\n\033[1m$ %s\033[0m\n' "$*"
	run sh -c "$*"
}
say() { printf '\n-- %s\n' "$*"; }

say "Booting Debian 13 with systemd, without a network."
boot
run sh -c '. /etc/os-release; echo "$PRETTY_NAME, $(systemctl --version | head -n 1)"'

say "Installing the package. It opens, enables and starts nothing."
deb=$(package)
copy_in "$deb" /root/packages
printf '\n\033[1m# apt install ./%s\033[0m\n' "${deb##*/}"
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
mkdir -p "$machine/root/etc/greeter/greeter.toml.d"
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
show apt purge -y greeter 2>/dev/null | grep -vE '^$|^(Reading|Building|The following|Summary|Freed|  )'
show ss --listening --tcp --no-header
end
