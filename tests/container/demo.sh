#!/bin/bash
# Demonstrates the package in a booted container, as the first five minutes of README.md:
# prints each command and its output.
#   demo.sh [PACKAGE]    with this Debian package instead of that in dist/
image=demo packages="postfix swaks"
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

# What a mail client sees. Its exit status is 21 during maintenance.
mail_client() {
	client 'swaks --server mail.example.org --to you@example.org --quit-after CONNECT || true'
}
is_mail_served() { [[ $(run timeout 5 bash -c 'head -n 1 </dev/tcp/127.0.0.1/25') == 220* ]]; }

heading "Booting Debian 13 with systemd and Postfix, without a network"
create_container
echo mail >"$container/root/etc/hostname"
write /etc/hosts <<<$'127.0.0.1 localhost mail.example.org mail\n::1 localhost'
sed -i 's/^myhostname = .*/myhostname = mail.example.org/' "$container/root/etc/postfix/main.cf"
boot
run sh -c '. /etc/os-release; echo "$PRETTY_NAME, $(systemctl --version | head -n 1)"'
expect_within 20 is_mail_served
mail_client

heading "Installing the package enables and starts nothing, and opens no port"
deb=${1:-$(package)}
copy_in "$deb" /root/packages
prompt '#' apt install "./${deb##*/}"
run apt install -y "/root/packages/${deb##*/}" 2>/dev/null | grep -E '^(Unpacking|Setting up) greeter'

heading "Once: the text for port 25, and a drop-in by which Postfix and greeter exclude each other"
write /etc/greeter/greeter.toml.d/50-smtp.toml <<'END'
[greeting.25]
message = "421 4.3.2 mail.example.org Closed for maintenance, please try again later"
line_ending = "crlf"
END
show cat /etc/greeter/greeter.toml.d/50-smtp.toml
show install -D -m644 /usr/share/doc/greeter/examples/fallback-postfix.conf \
	/etc/systemd/system/postfix.service.d/greeter.conf
show greeter --check
show systemctl daemon-reload

heading "Maintenance begins: one command"
show systemctl enable --now greeter@25.socket
mail_client
sleep 1.2
show systemctl status --no-pager --lines=0 greeter@25.service
show systemctl is-active postfix.service || :

heading "Maintenance ends: one command"
show systemctl start postfix.service
expect_within 20 is_mail_served
mail_client

heading "Postfix is killed: greeter takes the port"
show systemctl kill --signal=KILL postfix.service
expect_within 20 run systemctl is-active --quiet greeter@25.socket
mail_client

heading "The journal, and one entry with its fields"
run journalctl --sync
show journalctl --no-pager --identifier=greeter
show journalctl --no-pager --output=verbose --lines=1 --unit=greeter@25.service GREETER_RESULT=sent

heading "Purging the package; it keeps files added by the administrator"
show systemctl start postfix.service
expect_within 20 is_mail_served
prompt '#' apt purge greeter
run apt purge -y greeter 2>/dev/null | grep -E '^(Removing|Purging)'
show find /etc/greeter /etc/systemd/system/postfix.service.d -type f
show systemctl restart postfix.service
expect_within 20 is_mail_served
mail_client
destroy_container
